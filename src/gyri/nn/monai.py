"""MONAI's networks, where MONAI is installed."""

from __future__ import annotations

from typing import Any

from gyri.errors import UnavailableError


def monai_nets(asker: str) -> Any:
    """Return the module ``monai.networks.nets``; importing it takes seconds.

    Parameters
    ----------
    asker : the component that needs it, for the message.

    Raises
    ------
    UnavailableError
        MONAI is not installed.
    """
    try:
        from monai.networks import nets
    except ImportError:
        raise UnavailableError(
            f"{asker} needs MONAI, which is not installed. Run `pip install 'gyri[latent]'`, or "
            "take another network."
        ) from None
    return nets
