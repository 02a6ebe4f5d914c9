"""A GGUF file becomes an ordinary folder with the same logits, or one clear line."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from delrec_hf.errors import InputError
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.modeling.gguf import convert_gguf
from delrec_hf.modeling.gguf_source import SOURCE_FILE, read_source
from tests.film_rows import TITLES
from tests.modeling.gguf_files import write_llama
from tests.tiny_backbones import CHATML

gguf = pytest.importorskip("gguf")

IDS = torch.tensor([[5, 30, 77, 200, 9, 41]])
UPSTREAM = "someone/tiny-chat"


@pytest.fixture
def write(tiny_backbone: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A function that writes the tiny Llama as a GGUF file."""

    def make(shape: str = "llama", **given: Any) -> Path:
        return write_llama(tmp_path / "tiny.gguf", tiny_backbone(shape), **given)

    return make


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[[Path], str]:
    """A function that returns what is said of a file that is refused, and nothing is written."""

    def convert(path: Path) -> str:
        before = set(tmp_path.iterdir())
        with pytest.raises(InputError) as refused:
            convert_gguf(path, tmp_path / "out")
        assert set(tmp_path.iterdir()) == before
        told = str(refused.value)
        assert path.name in told
        assert "\n" not in told
        return told

    return convert


def logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(folder)(input_ids=IDS).logits


def test_logits_and_tokens_are_those_of_the_model_that_was_written(
    write: Callable[..., Path], tiny_backbone: Callable[[str], Path], tmp_path: Path
) -> None:
    convert_gguf(write(), tmp_path / "out")
    torch.testing.assert_close(
        logits(tmp_path / "out"), logits(tiny_backbone("llama")), atol=1e-5, rtol=0
    )
    before = ChatEncoder(AutoTokenizer.from_pretrained(tiny_backbone("llama")))
    after = ChatEncoder(AutoTokenizer.from_pretrained(tmp_path / "out"))
    assert len(after.tokenizer) == len(before.tokenizer)
    strange = ["Alien\u00b3", "<|im_end|>", "<|endoftext|>", "<s>"]
    chat = [{"role": "user", "content": "\n".join([*TITLES, *strange])}]
    assert after.encode_prompts([chat]) == before.encode_prompts([chat])
    assert after.encode_answers(TITLES) == before.encode_answers(TITLES)
    assert after.tokenizer.pad_token == before.tokenizer.pad_token


def test_the_folder_is_an_ordinary_one(write: Callable[..., Path], tmp_path: Path) -> None:
    convert_gguf(write(), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        SOURCE_FILE,
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["pad_token_id"]) == (2, 0)
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        for place in (tmp_path, Path.cwd(), Path.home()):
            assert str(place).encode() not in content
        assert b"/tmp" not in content


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_is_the_one_asked_for(
    write: Callable[..., Path], tmp_path: Path, dtype: Any
) -> None:
    convert_gguf(write(), tmp_path / "out", torch_dtype=dtype)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {getattr(torch, dtype)}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.dtype == getattr(torch, dtype)


def test_quantised_weights_are_written_as_what_they_stand_for(
    write: Callable[..., Path], tiny_backbone: Callable[[str], Path], tmp_path: Path
) -> None:
    from gguf.quants import dequantize, quantize

    kind = gguf.GGMLQuantizationType.Q4_1
    convert_gguf(write("llama-wide", quantization="Q4_1"), tmp_path / "out", source=UPSTREAM)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    original = load_file(tiny_backbone("llama-wide") / "model.safetensors")
    assert stored.keys() == original.keys()
    name = "model.layers.1.mlp.down_proj.weight"
    rounded = torch.from_numpy(dequantize(quantize(original[name].numpy(), kind), kind))
    assert torch.equal(stored[name], rounded)
    assert not torch.equal(stored[name], original[name])
    record = read_source(tmp_path / "out")
    assert record is not None
    assert (record["quantization"], record["is_quantized"]) == ("Q4_1", True)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "came from a quantised file, so they are not those of the original" in card
    assert "`Q4_1`" in card


def test_the_record_and_the_card_name_the_source(
    write: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(keys={"general.source.repo_url": f"https://huggingface.co/{UPSTREAM}"})
    convert_gguf(path, tmp_path / "out")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert read_source(tmp_path / "out") == {
        "source": UPSTREAM,
        "licence": "apache-2.0",
        "file": "tiny.gguf",
        "sha256": digest,
        "architecture": "llama",
        "quantization": "F32",
        "is_quantized": False,
        "weights": {"F32": sum(weight.numel() for weight in stored.values())},
        "torch_dtype": "float32",
    }
    card = (tmp_path / "out" / "README.md").read_text()
    header = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))
    assert (header["base_model"], header["license"]) == (UPSTREAM, "apache-2.0")
    for fact in (f"https://huggingface.co/{UPSTREAM}", "`apache-2.0`", digest, "`llama`", "`F32`"):
        assert fact in card
    assert "not those of the original" not in card
    assert not caplog.records


def test_what_the_user_says_wins_and_what_nobody_says_is_called_unknown(
    write: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write()
    convert_gguf(path, tmp_path / "given", licence="a|b\n# `c`", source="https://example.org/x")
    assert "states the licence `apache-2.0`; recorded is the given" in caplog.text
    record = read_source(tmp_path / "given")
    assert record is not None
    assert (record["source"], record["licence"]) == ("https://example.org/x", "a|b\n# `c`")
    card = (tmp_path / "given" / "README.md").read_text()
    assert "| licence | `a\\|b # 'c'` |" in card
    header = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))
    assert not {"license", "base_model"} & set(header)
    caplog.clear()
    convert_gguf(write(without=["general.license"]), tmp_path / "unknown")
    assert "states no source" in caplog.text
    assert "states no licence" in caplog.text
    assert (tmp_path / "unknown" / "README.md").read_text().count("not stated by the file") == 2


def test_the_same_file_gives_the_same_folder(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write()
    for name in ("one", "two"):
        convert_gguf(path, tmp_path / name)
    for one in (tmp_path / "one").iterdir():
        assert one.read_bytes() == (tmp_path / "two" / one.name).read_bytes()


def test_files_beside_the_gguf_file_are_not_taken_for_the_models(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write()
    (tmp_path / "chat_template.jinja").write_text("something else")
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "Heat"}')
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    convert_gguf(path.rename(tmp_path / "without-suffix"), tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == CHATML
    assert AutoTokenizer.from_pretrained(tmp_path / "out").pad_token == "<|pad|>"


@pytest.mark.parametrize("adds", [True, False])
def test_bos_is_added_where_the_file_says_so(
    write: Callable[..., Path], tmp_path: Path, adds: bool
) -> None:
    keys = {"tokenizer.ggml.add_bos_token": adds, "tokenizer.ggml.bos_token_id": 1}
    convert_gguf(write(keys=keys), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.bos_token == "<|im_start|>"
    assert (tokenizer("Heat")["input_ids"][0] == 1) is adds


def test_digits_are_split_apart_where_the_vocabulary_was_learned_so(
    write: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    text = "Alien\u00b3 and  1995"
    convert_gguf(write(keys={"tokenizer.ggml.pre": "smollm"}), tmp_path / "digits")
    split = AutoTokenizer.from_pretrained(tmp_path / "digits").backend_tokenizer.pre_tokenizer
    assert split.pre_tokenize_str(text) == words.pre_tokenize_str(text)
    assert "splits words" not in caplog.text
    convert_gguf(write(keys={"tokenizer.ggml.pre": "martian"}), tmp_path / "guessed")
    assert "splits words as `martian`, which transformers does not know" in caplog.text
    split = AutoTokenizer.from_pretrained(tmp_path / "guessed").backend_tokenizer.pre_tokenizer
    assert split.pre_tokenize_str(text) != words.pre_tokenize_str(text)


def test_weights_that_transformers_leaves_out_are_told(
    write: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    freqs = {"rope_freqs.weight": np.ones(4, dtype=np.float32)}
    convert_gguf(write(weights=freqs), tmp_path / "out")
    assert "4 weights of" in caplog.text
    assert "rope_freqs.weight scales the positions" in caplog.text
    caplog.clear()
    convert_gguf(write(keys={"llama.rope.scaling.factor": 4.0}), tmp_path / "scaled")
    assert "scales its positions and transformers does not read how" in caplog.text


def test_a_file_that_is_not_there_or_is_none_is_refused(
    refusal: Callable[[Path], str], tmp_path: Path
) -> None:
    assert "is not there" in refusal(tmp_path / "absent.gguf")
    (tmp_path / "folder.gguf").mkdir()
    assert "is not there" in refusal(tmp_path / "folder.gguf")
    for content in (b"", b"GG", b"PK\x03\x04 a zip"):
        (tmp_path / "other.gguf").write_bytes(content)
        assert "is no GGUF file" in refusal(tmp_path / "other.gguf")


def test_a_truncated_file_is_refused_wherever_it_ends(
    write: Callable[..., Path], refusal: Callable[[Path], str]
) -> None:
    path = write()
    whole = path.read_bytes()
    ends = [*range(4, 200, 13), *range(200, len(whole), len(whole) // 30), len(whole) - 1]
    for end in ends:
        path.write_bytes(whole[:end])
        assert "truncated or damaged" in refusal(path)


@pytest.mark.parametrize("architecture", ["martian", "t5", "clip"])
def test_an_architecture_that_transformers_cannot_read_is_refused(
    write: Callable[..., Path], refusal: Callable[[Path], str], architecture: str
) -> None:
    told = refusal(write(architecture=architecture))
    assert f"of architecture `{architecture}`, cannot be read by transformers" in told


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"without": ["tokenizer.chat_template"]}, "gguf-new-metadata --chat-template-file"),
        ({"keys": {"tokenizer.chat_template": "{{ hm }}"}}, "leaves the user's turn or"),
        ({"keys": {"tokenizer.chat_template": "{% if %}"}}, "chat template of"),
        ({"without": ["tokenizer.ggml.tokens"]}, "holds no tokenizer"),
        ({"keys": {"tokenizer.ggml.model": "martian"}}, "tokenizer of GGUF file"),
        ({"without": ["tokenizer.ggml.merges"]}, "tokenizer of GGUF file"),
        (
            {"without": ["llama.embedding_length"]},
            "lm_head.weight is (400, 32) and should be (400, 4096)",
        ),
        ({"without": ["blk.1.ffn_up.weight"]}, "lacks 1 weights"),
        ({"keys": {"llama.block_count": 3}}, "lacks 9 weights"),
        ({"keys": {"split.count": 3}}, "one of 3 parts"),
    ],
)
def test_a_file_that_lacks_a_part_is_refused_with_the_cure(
    write: Callable[..., Path],
    refusal: Callable[[Path], str],
    given: dict[str, Any],
    message: str,
) -> None:
    assert message in refusal(write(**given))


def test_a_vocabulary_larger_than_the_model_is_refused(
    write: Callable[..., Path], refusal: Callable[[Path], str], tokenizer: PreTrainedTokenizerFast
) -> None:
    vocab = tokenizer.get_vocab()
    tokens = [*sorted(vocab, key=lambda token: vocab[token]), *(f"more{n}" for n in range(99))]
    told = refusal(write(keys={"tokenizer.ggml.tokens": tokens}))
    assert f"has {len(tokens)} tokens and its model 400" in told


def test_without_the_package_one_line_says_how_to_install_it(
    write: Callable[..., Path], refusal: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    monkeypatch.setitem(sys.modules, "gguf", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"pip install 'delrec-hf\[gguf\]'"):
        convert_gguf(path, path.with_name("out"))


def test_a_folder_that_holds_something_is_left_alone(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for place in (tmp_path / "full", path):
        with pytest.raises(InputError, match="is not an empty folder"):
            convert_gguf(path, place)
    assert [one.name for one in (tmp_path / "full").iterdir()] == ["mine.txt"]
    with pytest.raises(InputError, match="cannot be a folder"):
        convert_gguf(path, path / "below" / "a-file")
    (tmp_path / "empty").mkdir()
    convert_gguf(path, tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").is_file()
