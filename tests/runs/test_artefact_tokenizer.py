"""The tokenizer in an artefact's folder, for people who load the artefact with PEFT alone."""

from collections.abc import Callable
from copy import deepcopy
from importlib.resources import files
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from delrec_hf.data.toy_world import toy_world
from delrec_hf.instructions.templates import DOMAINS, lsr_prompt
from delrec_hf.modeling.stacked import DelRecModel
from delrec_hf.runs.pipeline import run_recipe
from delrec_hf.runs.recipe import Recipe
from delrec_hf.runs.run import Run
from delrec_hf.runs.trainings import save_artefact

TEMPLATES = {
    path.name: path.read_text(encoding="utf-8")
    for path in files("trl").joinpath("chat_templates").iterdir()
    if path.name.endswith(".jinja")
}
LISTED = lsr_prompt(DOMAINS["movie"], ["Alien (1979)"], ["Heat (1995)", "M (1931)"])
MESSAGES = [{"role": "user", "content": LISTED}]


@pytest.fixture(scope="module")
def taught(tiny_backbone: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose data are prepared and whose teacher is trained."""
    folder = tmp_path_factory.mktemp("taught")
    world = toy_world(num_users=30)
    world.items.to_csv(folder / "items.csv", index=False)
    world.interactions.to_csv(folder / "interactions.csv", index=False)
    recipe = Recipe(
        folder / "run",
        {
            "data": {"path": str(folder), "num_candidates": 6},
            "teacher": {"max_steps": 2, "hidden_size": 8, "num_layers": 1, "top_h": 3},
            "backbone": {"model_name_or_path": str(tiny_backbone())},
            "finetune": {"loss": "title"},  # whose settings need no calibration
            "distil": {"loss": "title"},
        },
    )
    for stage in ("prepare", "teach"):
        run_recipe(recipe, stage)
    return Run(recipe)


def test_prompts_of_the_artefacts_own_tokenizer_are_the_trained_ones_with_every_template(
    taught: Run,
    stacked: Callable[..., DelRecModel],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    model, wrong = stacked(), {}
    for name, template in sorted(TEMPLATES.items()):
        own = deepcopy(tokenizer)
        own.chat_template, own.bos_token = template, "<|im_start|>"
        write = taught.instruction_rows(own, seed=0)
        save_artefact(taught, model, write, tmp_path / name)
        read = AutoTokenizer.from_pretrained(tmp_path / name)
        try:
            ids = read.apply_chat_template(MESSAGES, add_generation_prompt=True)["input_ids"]
        except Exception as error:  # a template that reads no plain text
            wrong[name] = repr(error)
            continue
        if ids != write.encoder.encode_prompts([MESSAGES])[0]:
            wrong[name] = (read.decode(ids)[-40:], write.encoder.head(MESSAGES)[-40:])
    assert len(TEMPLATES) > 60
    assert wrong == {}
