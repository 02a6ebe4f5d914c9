"""The plain checkpoint computes what the stacked model does, with nothing of ours installed."""

import copy
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from delrec_hf import Recommender
from delrec_hf.errors import InputError
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.templates import DOMAINS, lsr_prompt
from delrec_hf.modeling.export import export
from delrec_hf.modeling.stacked import DelRecModel
from tests import tiny_backbones
from tests.film_rows import TITLES

IDS = torch.tensor([[1, 30, 77, 200, 9, 41, 3]])
SHAPES = ["qwen2", "qwen3", "llama", "gemma2", "gemma3", "gpt_neox", "gpt2"]

TEMPLATES = {
    path.name: path.read_text(encoding="utf-8")
    for path in sorted(files("trl").joinpath("chat_templates").iterdir(), key=lambda p: p.name)
    if path.name.endswith(".jinja")
}
LISTED = lsr_prompt(DOMAINS["movie"], ["Alien (1979)"], ["Heat (1995)", "M (1931)"])
MESSAGES = [{"role": "user", "content": LISTED}]
HISTORY = ["Heat (1995)", "Alien (1979)"]


def set_template(folder: Path, template: str, pre_tokenizer: object = None) -> ChatEncoder:
    """Give the tokenizer in a folder another chat template; return how training reads with it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template, tokenizer.bos_token = template, "<|im_start|>"
    if pre_tokenizer is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.save_pretrained(folder)
    return ChatEncoder(AutoTokenizer.from_pretrained(folder))


def exported_prompt(folder: Path, place: Path) -> tuple[list[int], str]:
    """Export an artefact; return the ids that its folder gives a question, and their text."""
    export(folder, place)
    tokenizer = AutoTokenizer.from_pretrained(place)
    ids: list[int] = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True)[
        "input_ids"
    ]
    virtual = tokenizer.convert_tokens_to_ids([f"<|delrec_{number}|>" for number in range(5)])
    assert ids[:5] == virtual
    return ids[5:], tokenizer.decode(ids[5:])


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_exported_equals_stacked(
    make_artefact: Callable[..., Path], tmp_path: Path, shape: str
) -> None:
    folder = make_artefact(shape)
    stacked = DelRecModel.from_pretrained(folder)
    export(folder, tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    virtual = tokenizer.convert_tokens_to_ids([f"<|delrec_{number}|>" for number in range(5)])
    assert len(set(virtual)) == 5
    found = model(input_ids=torch.cat([torch.tensor([virtual]), IDS], 1)).logits
    words = stacked(input_ids=IDS).logits
    assert min(virtual) >= len(AutoTokenizer.from_pretrained(folder))
    known = min(virtual)
    torch.testing.assert_close(found[..., :known], words[..., :known], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_the_exported_chat_ranks_candidates_as_the_recommender(
    make_artefact: Callable[..., Path],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: str,
) -> None:
    config = tiny_backbones.SHAPES[shape]()
    config.vocab_size = len(tokenizer)  # virtual tokens take spare rows first, which have a share
    monkeypatch.setitem(tiny_backbones.SHAPES, f"{shape}-full", lambda: config)
    folder = make_artefact(f"{shape}-full", candidates="unlisted")
    recommender = Recommender.from_pretrained(folder)
    offered = [title for title in TITLES if title not in HISTORY]
    expected = recommender.recommend(HISTORY, offered, disable_tqdm=True)
    export(folder, tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    served = AutoTokenizer.from_pretrained(tmp_path / "plain")
    messages = [{"role": "user", "content": lsr_prompt(DOMAINS["movie"], HISTORY)}]
    prompt = served.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]

    def score(title: str) -> float:
        answer = served(title + "<|im_end|>", add_special_tokens=False)["input_ids"]
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        # Over the words that there were before: virtual tokens are never answered.
        likely = logits[:, : len(tokenizer)].log_softmax(-1)
        return sum(likely[place, token].item() for place, token in enumerate(answer))

    found = {title: score(title) for title in offered}
    assert sorted(offered, key=lambda one: -found[one]) == [one.title for one in expected]
    for one in expected:
        assert found[one.title] == pytest.approx(one.score, abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_virtual_token_is_ever_an_answer(
    make_artefact: Callable[..., Path], tmp_path: Path, shape: str
) -> None:
    folder = make_artefact(shape)
    export(folder, tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    virtual = set(tokenizer.convert_tokens_to_ids([f"<|delrec_{k}|>" for k in range(5)]))
    torch.manual_seed(0)
    ids = torch.randint(3, 350, (16, 12))
    for sampling in ({"do_sample": False}, {"do_sample": True, "temperature": 9.0}):
        answers = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=20,
            eos_token_id=None,
            **sampling,
        )
        assert not virtual & set(answers[:, 12:].flatten().tolist()), sampling
    with torch.inference_mode():
        logits = model(input_ids=ids).logits
    best = logits.max(-1).values
    assert (logits[..., sorted(virtual)].max(-1).values < best).all()


def test_the_chat_template_puts_the_virtual_tokens_first(
    make_artefact: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_artefact()
    export(folder, tmp_path / "plain")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    before = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "Heat (1995)?"}]

    def encode(tokenizer: AutoTokenizer) -> list[int]:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    virtual = tokenizer.convert_tokens_to_ids([f"<|delrec_{number}|>" for number in range(5)])
    assert encode(tokenizer) == [*virtual, *encode(before)]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert ids == encode(tokenizer)
    assert tokenizer.decode(ids, skip_special_tokens=True).startswith("user\nHeat")
    for token in ("<|im_start|>", "<|im_end|>"):
        assert tokenizer.convert_tokens_to_ids(token) == before.convert_tokens_to_ids(token)


@pytest.mark.slow
def test_exported_prompts_end_where_trained_answers_began_with_every_template(
    make_artefact: Callable[..., Path], tmp_path: Path
) -> None:
    folder, wrong = make_artefact(), {}
    for name, template in TEMPLATES.items():
        encoder = set_template(folder, template)
        try:
            ids, text = exported_prompt(folder, tmp_path / name)
        except Exception as error:  # a template that reads no plain text
            wrong[name] = (repr(error), encoder.head(MESSAGES)[-60:])
            continue
        if ids != encoder.encode_prompts([MESSAGES])[0]:
            wrong[name] = (text[-60:], encoder.head(MESSAGES)[-60:])
    assert len(TEMPLATES) > 60
    assert wrong == {}


@torch.inference_mode()
def test_an_exported_model_answers_as_the_stacked_one_behind_an_empty_thought(
    make_artefact: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_artefact()
    encoder = set_template(folder, TEMPLATES["qwen3.jinja"])
    trained = torch.tensor(encoder.encode_prompts([MESSAGES]))
    expected = DelRecModel.from_pretrained(folder)(input_ids=trained).logits[0, -1]
    export(folder, tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_tensors="pt")
    found, known = model(**ids).logits[0, -1], len(encoder.tokenizer)
    # LoRA is merged here and added there: the last digits differ.
    torch.testing.assert_close(found[:known], expected[:known], atol=1e-5, rtol=0)
    assert found.argmax() == expected[:known].argmax()
    assert tokenizer.decode(ids["input_ids"][0]).endswith("assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    "template",
    [
        "\n  {% for m in messages %}{{ m.content }}\n\n{% endfor %}\n",
        "  {% for m in messages %}{{ m.role + ': ' + m.content }}\n{% endfor %}",
        "{%- for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}\r\n",
    ],
)
def test_white_space_around_a_chat_template_is_exported_along(
    make_artefact: Callable[..., Path], tmp_path: Path, template: str
) -> None:
    folder = make_artefact()
    encoder = set_template(folder, template)
    assert exported_prompt(folder, tmp_path / "plain")[1] == encoder.head(MESSAGES)


def test_a_space_that_a_tokenizer_puts_before_texts_stands_behind_the_virtual_tokens(
    make_artefact: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_artefact("llama")
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    spaced = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    encoder = set_template(folder, template, spaced)
    ids, _ = exported_prompt(folder, tmp_path / "plain")
    assert ids == encoder.encode_prompts([MESSAGES])[0]


def test_a_tokenizer_that_would_cut_prompts_otherwise_is_not_exported(
    make_artefact: Callable[..., Path], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    folder = make_artefact()
    # AutoTokenizer gives a folder whose config says qwen2 Qwen's own splitting into words.
    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(use_regex=False)
    other.save_pretrained(folder)
    with pytest.raises(InputError, match="cut prompts otherwise than in training"):
        export(folder, tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_the_checkpoint_is_plain(make_artefact: Callable[..., Path], tmp_path: Path) -> None:
    export(make_artefact(), tmp_path / "plain")
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not {name for name in names if "adapter" in name or name == "prompt"}
    assert '"tie_word_embeddings": false' in (tmp_path / "plain" / "config.json").read_text()


def test_a_folder_that_is_not_empty_is_left_alone(
    make_artefact: Callable[..., Path], tmp_path: Path
) -> None:
    place = tmp_path / "full"
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        export(make_artefact(), place)
    assert [path.name for path in place.iterdir()] == ["mine.txt"]
