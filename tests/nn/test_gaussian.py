import torch

from gyri.nn.gaussian import LowRankGaussian


def drawn(n: int = 4000, d: int = 6) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    mixing = torch.diag(torch.tensor([3.0, 2.0, 0.5, 0.5, 0.5, 0.5]))
    rotation, _ = torch.linalg.qr(torch.randn(d, d, generator=g))
    return torch.randn(n, d, generator=g) @ mixing @ rotation.T + 1.5


def test_fit_recovers_mean_and_variances():
    gaussian = LowRankGaussian.fit(drawn(), 2)
    assert torch.allclose(gaussian.mean, torch.full((6,), 1.5), atol=0.15)
    assert torch.allclose(gaussian.variance, torch.tensor([9.0, 4.0]), rtol=0.08)
    assert torch.allclose(gaussian.basis.T @ gaussian.basis, torch.eye(2), atol=1e-4)


def test_sample_has_the_fitted_covariance():
    gaussian = LowRankGaussian.fit(drawn(), 2)
    x = gaussian.sample(20000, torch.Generator().manual_seed(1))
    truth = gaussian.basis @ torch.diag(gaussian.variance) @ gaussian.basis.T
    assert torch.allclose(torch.cov(x.T), truth, atol=0.25)


def test_fewer_rows_than_components_keeps_the_rank_that_exists():
    gaussian = LowRankGaussian.fit(drawn(4), 50)
    assert gaussian.num_components == 3
    assert torch.allclose(gaussian.expand(gaussian.project(drawn(4))), drawn(4), atol=1e-4)


def test_tensors_round_trip():
    gaussian = LowRankGaussian.fit(drawn(50), 2)
    again = LowRankGaussian.from_tensors(gaussian.tensors("prior"), "prior")
    assert torch.equal(again.basis, gaussian.basis)
