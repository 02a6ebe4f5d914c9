"""Messages as token ids: one way for training and for ranking, with any tokenizer."""

from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset
from datasets.fingerprint import Hasher
from tokenizers import processors
from transformers import AutoTokenizer

from delrec_hf.errors import InputError
from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.rows import ranking_rows
from tests.film_rows import ITEMS

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
PROMPT = [{"role": "user", "content": "Which candidate?\n- Heat (1995)\n- Alien (1979)"}]
TITLES = ["Heat (1995)", "Alien (1979)", "Heat"]
KINDS = ["byte-level", "prepend", "metaspace"]


def completed(title):
    return [{"role": "assistant", "content": title}]


def adds_bos(tokenizer):
    """The tokenizer, putting its BOS before every text as Llama's and Gemma's do."""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    return tokenizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", [CHATML, LLAMA_2, None])
def test_training_rows_are_what_ranking_scores(make_tokenizer, template, kind):
    encoder = ChatEncoder(make_tokenizer(template, kind=kind))
    rows = {"prompt": [PROMPT] * 3, "completion": [completed(title) for title in TITLES]}
    encoded = encoder.encode_rows(rows)
    prompt = encoder.encode_prompts([PROMPT])[0]
    for ids, labels, answer in zip(
        encoded["input_ids"], encoded["labels"], encoder.encode_answers(TITLES), strict=True
    ):
        assert ids == prompt + answer
        assert labels == [-100] * len(prompt) + answer


@pytest.mark.parametrize("kind", KINDS)
def test_a_space_before_the_answer_belongs_to_it(make_tokenizer, kind):
    tokenizer = make_tokenizer(LLAMA_2, kind=kind)
    encoder = ChatEncoder(tokenizer)
    ids = encoder.encode_prompts([PROMPT])[0] + encoder.encode_answers(TITLES[:1])[0]
    shown = tokenizer.apply_chat_template([*PROMPT, *completed(TITLES[0])], tokenize=False)
    assert ids == tokenizer(shown, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == tokenizer.decode(
        tokenizer(shown, add_special_tokens=False)["input_ids"]
    )
    assert encoder.head(PROMPT).endswith("[/INST]")


@pytest.mark.parametrize("kind", KINDS)
def test_decoded_rows_read_as_the_templates_text(make_tokenizer, kind):
    tokenizer = make_tokenizer(CHATML, kind=kind)
    encoder = ChatEncoder(tokenizer)
    head, answer = encoder.encode_prompts([PROMPT])[0], encoder.encode_answers(TITLES[:1])[0]
    if kind == "byte-level":
        text = tokenizer.decode(head + answer)
        assert text == encoder.head(PROMPT) + TITLES[0] + "<|im_end|>"
    else:  # these put a space before every text, before answers as before prompts
        assert tokenizer.decode(answer, skip_special_tokens=True) == TITLES[0]
        assert tokenizer.convert_ids_to_tokens(answer[0]).startswith("▁")
    assert answer[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize("template", ["{{ bos_token }}" + CHATML, LLAMA_2, None])
def test_a_prompt_has_exactly_one_bos(make_tokenizer, template):
    tokenizer = adds_bos(make_tokenizer(template))
    encoder = ChatEncoder(tokenizer)
    prompt = encoder.encode_prompts([PROMPT])[0]
    assert prompt[0] == tokenizer.bos_token_id
    assert prompt.count(tokenizer.bos_token_id) == 1
    answer = encoder.encode_answers(TITLES[:1])[0]
    assert tokenizer.bos_token_id not in answer


def test_a_template_without_bos_gets_none(make_tokenizer):
    tokenizer = adds_bos(make_tokenizer(CHATML))
    assert tokenizer.bos_token_id not in ChatEncoder(tokenizer).encode_prompts([PROMPT])[0]


def test_a_tokenizer_without_a_template_gets_a_plain_one_and_stays_as_it_was(make_tokenizer):
    tokenizer = make_tokenizer()
    encoder = ChatEncoder(tokenizer)
    assert encoder.head(PROMPT) == f"User: {PROMPT[0]['content']}\nAssistant:"
    answer = encoder.encode_answers(["Heat"])[0]
    assert answer == [*tokenizer(" Heat")["input_ids"], tokenizer.eos_token_id]
    assert tokenizer.chat_template is None


def test_a_saved_tokenizer_encodes_as_before(make_tokenizer, tmp_path):
    encoder = ChatEncoder(adds_bos(make_tokenizer()))
    encoder.tokenizer.save_pretrained(tmp_path)
    again = ChatEncoder(AutoTokenizer.from_pretrained(tmp_path))
    assert again.encode_prompts([PROMPT]) == encoder.encode_prompts([PROMPT])
    assert again.encode_answers(TITLES) == encoder.encode_answers(TITLES)


def test_without_any_end_of_turn_an_answer_ends_with_the_end_of_text(make_tokenizer):
    plain = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    tokenizer = make_tokenizer(plain)
    assert ChatEncoder(tokenizer).encode_answers(["Heat"])[0][-1] == tokenizer.eos_token_id


def test_what_stands_between_answer_and_end_of_turn_is_part_of_the_answer(make_tokenizer):
    tokenizer = make_tokenizer(CHATML.replace("<|im_end|>", "\n<|im_end|>"))
    answer = ChatEncoder(tokenizer).encode_answers(["Heat"])[0]
    assert tokenizer.decode(answer) == "Heat\n<|im_end|>"


def test_a_title_like_the_answers_placeholder_changes_nothing(make_tokenizer):
    encoder = ChatEncoder(make_tokenizer(CHATML))
    text = "- @@answer@@ {{ messages }} {% endfor %}"
    head = encoder.head([{"role": "user", "content": text}])
    assert head == f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no chats here') }}", "no chats here"),
        ("{{ messages[0]['content'] }}", "leaves the user's turn or the assistant's answer out"),
        ("{{ messages[-1]['content'] }}", "leaves the user's turn or the assistant's answer out"),
        ("{% if %}", "refuses"),
        (CHATML + "{{ eos_token }}", "no generation prompt can end where answers begin"),
    ],
)
def test_a_template_without_turns_is_refused_in_one_line(make_tokenizer, template, reason):
    tokenizer = make_tokenizer(template, name_or_path="some/model")
    with pytest.raises(InputError, match=reason) as caught:
        ChatEncoder(tokenizer)
    assert "some/model" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_conversation_that_the_template_refuses_names_the_reason(make_tokenizer):
    template = "{% if messages | length > 2 %}{{ raise_exception('too long') }}{% endif %}" + CHATML
    encoder = ChatEncoder(make_tokenizer(template))
    with pytest.raises(InputError, match="too long"):
        encoder.encode_prompts([PROMPT, PROMPT * 2])


def test_nothing_to_encode_gives_nothing(make_tokenizer):
    encoder = ChatEncoder(make_tokenizer(CHATML))
    assert encoder.encode_prompts([]) == encoder.encode_answers([]) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", [CHATML, LLAMA_2, None])
def test_a_generation_prompt_that_ends_right_is_served_as_it_stands(make_tokenizer, template, kind):
    encoder = ChatEncoder(make_tokenizer(template, kind=kind))
    served = encoder.served_tokenizer()
    assert served.chat_template == encoder.tokenizer.chat_template
    asked = served.apply_chat_template(PROMPT, add_generation_prompt=True)
    assert asked["input_ids"] == encoder.encode_prompts([PROMPT])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_served_prompt_leaves_the_answers_space_to_the_answer(make_tokenizer, kind):
    template = LLAMA_2 + "{% if add_generation_prompt %} <think>{% endif %}"
    tokenizer = adds_bos(make_tokenizer(template, kind=kind))
    encoder = ChatEncoder(tokenizer)
    asked = encoder.served_tokenizer().apply_chat_template(PROMPT, add_generation_prompt=True)
    assert asked["input_ids"] == encoder.encode_prompts([PROMPT])[0]
    assert asked["input_ids"].count(tokenizer.bos_token_id) == 1
    assert tokenizer.chat_template == template


@pytest.mark.parametrize("before", ["", "\n", "  ", "\n  ", "{#- a comment -#}\n "])
@pytest.mark.parametrize("behind", ["", "\n", "\r\n", "\n\n"])
def test_white_space_around_a_template_is_served_along(make_tokenizer, before, behind):
    turns = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    tokenizer = make_tokenizer(before + turns + behind)
    encoder = ChatEncoder(tokenizer)
    served = encoder.served_tokenizer()
    for given in (PROMPT, [*PROMPT, *completed("Heat")]):
        shown = tokenizer.apply_chat_template(given, tokenize=False)
        assert served.apply_chat_template(given, tokenize=False) == shown
    asked = served.apply_chat_template(PROMPT, tokenize=False, add_generation_prompt=True)
    assert asked == encoder.head(PROMPT)


def test_of_several_named_templates_the_one_that_training_read_is_served(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ messages }}"}
    assert ChatEncoder(tokenizer).served_tokenizer().chat_template == CHATML


def test_rows_map_through_datasets_with_one_fingerprint(make_tokenizer):
    rows = Dataset.from_dict({"prompt": [PROMPT] * 4, "completion": [completed("Heat")] * 4})
    tokenizer = make_tokenizer(CHATML)
    encoder = ChatEncoder(tokenizer)
    before = Hasher.hash(encoder.encode_rows)
    encoded = rows.map(encoder.encode_rows, batched=True, remove_columns=rows.column_names)
    assert encoded.column_names == ["input_ids", "labels"]
    assert Hasher.hash(encoder.encode_rows) == before
    assert Hasher.hash(ChatEncoder(tokenizer).encode_rows) == before


def test_rows_to_rank_lie_in_a_file_and_are_encoded_once(
    instruction_rows: Callable[..., Dataset], encoder: ChatEncoder, tmp_path: Path
) -> None:
    instruction_rows("lsr", 12).save_to_disk(tmp_path / "rows")
    rows = Dataset.load_from_disk(str(tmp_path / "rows"))
    first, again = (ranking_rows(rows, encoder, ITEMS) for _ in range(2))
    assert first.cache_files
    assert first.cache_files == again.cache_files
    prompt = encoder.encode_prompts([rows[3]["prompt"]])[0]
    offered = encoder.encode_answers([ITEMS[one] for one in rows[3]["candidates"]])
    assert again[3]["prompt_ids"] == prompt
    assert again[3]["candidate_ids"] == offered
    assert rows[3]["candidates"][again[3]["target_place"]] == rows[3]["target"]
