"""Log-probabilities of titles, kept on disk: what a model has read once it need not read again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import broadcast_object_list

from delrec_hf.files import naming
from delrec_hf.hashes import fingerprint
from delrec_hf.logging import get_logger
from delrec_hf.ranking.scoring import CandidateScorer

FloatArray = npt.NDArray[np.float64]
TokenIds = list[int]

logger = get_logger(__name__)


@dataclass(frozen=True)
class KeptScores:
    """Rows that a model has scored, in files of one JSON object a line, one file per process.

    A row is known again by its tokens and a model by its weights, so that nothing has to be said of
    recipes and versions: what differs in either is scored anew. A line holds the rows of a batch,
    and a killed process loses that one whole: scored again in company it has the same last digits.

    Attributes:
        known: A row's key to the log-probabilities of its candidates.
        file: Where this process adds to them.
    """

    known: Mapping[str, FloatArray]
    file: Path

    @classmethod
    def open(cls, folder: Path, accelerator: Any) -> "KeptScores":
        """Read what is kept of a model; all processes call this together.

        Args:
            folder: Where the model's files lie; see `folder_of`.
            accelerator: What knows the processes.
        """
        read: list[Mapping[str, FloatArray]] = [{}]
        if accelerator.is_main_process:  # one process decides what is known, or batches would part
            folder.mkdir(parents=True, exist_ok=True)
            read = [_read(sorted(folder.glob("*.jsonl")))]
        known: Mapping[str, FloatArray] = broadcast_object_list(read)[0]
        return cls(known, folder / f"{accelerator.process_index}.jsonl")

    def of(
        self, keys: Sequence[str], candidates: Sequence[Sequence[TokenIds]]
    ) -> dict[str, FloatArray]:
        """Return what is known of these rows."""
        found = {key: self.known[key] for key in keys if key in self.known}
        sizes = dict(zip(keys, map(len, candidates), strict=True))
        return {key: totals for key, totals in found.items() if totals.shape == (sizes[key],)}

    def add(self, found: Mapping[str, FloatArray]) -> None:
        """Append the rows of a batch; such as nothing can be ranked by are not kept."""
        rows = {key: one.tolist() for key, one in found.items() if np.isfinite(one).all()}
        if not rows:
            return
        line = json.dumps({"log_probabilities": rows}) + "\n"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with naming(self.file), self.file.open("a+b") as stream:
            stream.seek(max(0, stream.seek(0, 2) - 1))
            cut_short = stream.read(1) not in (b"", b"\n")  # a killed process left half a line
            stream.write(("\n" * cut_short + line).encode())


def row_key(prompt: TokenIds, candidates: Sequence[TokenIds]) -> str:
    """Return what stands for a row: a hash of its tokens."""
    return fingerprint(list(prompt), [list(one) for one in candidates])


def folder_of(scorer: CandidateScorer, scores: Path) -> Path:
    """Return where rows of a model are kept, its weights being read once for this.

    Args:
        scorer: The model; how it makes scores of log-probabilities does not matter.
        scores: The folder of all models.
    """
    return scores / model_print(scorer)


def model_print(scorer: CandidateScorer) -> str:
    """Return what stands for a model: a hash of all its weights, adapters and prompt included."""
    digest = hashlib.sha256(scorer.backbone.config.to_json_string().encode())
    digest.update(str(scorer.backbone.config._attn_implementation).encode())
    tensors = dict(scorer.backbone.state_dict())
    if scorer.soft_prompt is not None:
        tensors["soft_prompt"] = scorer.soft_prompt
    if scorer.cartridge is not None:
        tensors |= {
            f"cartridge/{layer}": torch.cat(states)
            for layer, states in enumerate(scorer.cartridge.states)
            if states is not None
        }
    for name, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor):
            digest.update(name.encode())
            plain = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _read(files: Sequence[Path]) -> dict[str, FloatArray]:
    known: dict[str, FloatArray] = {}
    broken = 0
    for file in files:
        for line in file.read_bytes().splitlines():
            try:
                rows = json.loads(line)["log_probabilities"].items()
                known |= {key: np.array(one, dtype=np.float64) for key, one in rows}
            except (ValueError, TypeError, KeyError, AttributeError):
                broken += 1
    if known or broken:
        logger.info("%d rows of this model are scored already", len(known))
    if broken:
        logger.warning("%d batches that were kept cannot be read, and are scored again", broken)
    return known
