"""What a test runs in one process and in two: word and encode the rows of a run, count prompts."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.launch import part
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.rows import distil_rows, finetune_rows
from delrec_hf.runs.run import Run


def word(folder: Path, sections: dict[str, Any], out: Path) -> None:
    """Write how many prompts this process has encoded for both stages, and how many rows it got."""
    run, encoded, plain = Run(Recipe(folder, sections)), [0], ChatEncoder.encode_prompts

    def counted(self: ChatEncoder, prompts: Sequence[Any]) -> list[list[int]]:
        encoded[0] += len(prompts)
        return plain(self, prompts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChatEncoder, "encode_prompts", counted)
        _, tokenizer = run.backbone()
        distil, finetune = (run.trainer_settings(one, one) for one in ("distil", "finetune"))
        tasks = distil_rows(run, distil, tokenizer)
        rows = finetune_rows(run, finetune, run.instruction_rows(tokenizer, finetune.seed))
    got = sum(map(len, [*tasks.train.values(), *tasks.ranking.values(), rows.train, rows.ranking]))
    out.with_suffix(f".{os.environ.get('RANK', 0)}").write_text(json.dumps([encoded[0], got]))
    part(0)
