"""Free text as numbers, by any encoder of Hugging Face's format that lies on this disk.

A report conditions a model through a frozen encoder, as in MedSyn (Xu et al. 2024); the vector is
the mean over tokens of the last hidden state, of length 1 (Reimers and Gurevych 2019).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gyri.errors import DataError, UnavailableError

TEXTS_PER_CALL = 32
SPECIAL_TOKENS = 2
"""Positions that some encoders keep for themselves beyond the longest text."""


class TextEncoder:
    """A frozen encoder of text.

    Parameters
    ----------
    folder : with the configuration, tokenizer and safetensors weights of the encoder; nothing is
        downloaded and no code of the folder is run.

    Raises
    ------
    UnavailableError
        If transformers is not installed.
    DataError
        If the folder holds no such encoder.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        except ImportError:
            raise UnavailableError(
                "Conditions of free text need transformers, which is not installed. Run "
                "`pip install 'gyri[text]'`, or leave text_encoders out of the recipe."
            ) from None
        if not (folder / "config.json").is_file():
            raise DataError(
                f"{folder} holds no text encoder (config.json). Name a folder with the "
                "configuration, tokenizer and safetensors weights of one in text_encoders."
            )
        logging.disable_progress_bar()
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model: Any = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            ).eval()
        except (OSError, ValueError) as error:
            raise DataError(
                f"{folder} cannot be read as a text encoder: {error} It must hold a tokenizer and "
                "safetensors weights."
            ) from None
        self.folder = folder

    @cached_property
    def sha256(self) -> str:
        """Hash of the weights."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.glob("*.safetensors")):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return (N, W) vectors of length 1 on the CPU; texts are cut to what the encoder reads."""
        longest = self._model.config.max_position_embeddings - SPECIAL_TOKENS
        found = []
        for start in range(0, len(texts), TEXTS_PER_CALL):
            tokens = self._tokenizer(
                list(texts[start : start + TEXTS_PER_CALL]),
                padding=True,
                truncation=True,
                max_length=min(self._tokenizer.model_max_length, longest),
                return_tensors="pt",
            )
            state = self._model(**tokens).last_hidden_state
            mask = tokens["attention_mask"][:, :, None].to(state)
            found.append((state * mask).sum(1) / mask.sum(1))
        return torch.nn.functional.normalize(torch.cat(found), dim=1)


@lru_cache(maxsize=4)
def text_encoder(folder: str) -> TextEncoder:
    """Return the encoder of a folder, read once."""
    return TextEncoder(Path(folder))
