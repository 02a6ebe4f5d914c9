"""Train a small chat backbone from scratch on facts about titles and on list-reading skills.

    python recipes/backbones/train_backbone.py --config recipes/backbones/toy.yaml --output_dir D

It stands in for a pretrained model where none can be had. It never sees a user's sequence.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import facts as fact_sources
import torch
import yaml
from skills import Chat, ChatMaker, Facts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    get_cosine_schedule_with_warmup,
)
from transformers.utils import logging as transformers_logging

from delrec_hf.instructions.encoding import ChatEncoder
from delrec_hf.instructions.templates import load_domain
from delrec_hf.labels import IGNORED

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def main() -> None:
    """Read the settings, train, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="YAML file beside this script")
    parser.add_argument("--output_dir", required=True, help="folder of the model")
    parser.add_argument("--data", help="folder with items and film texts, where the facts need it")
    parser.add_argument("--steps", type=int, help="instead of the file's")
    arguments = parser.parse_args()
    settings = yaml.safe_load(Path(arguments.config).read_text(encoding="utf-8"))
    settings["learning_rate"] = float(settings["learning_rate"])
    settings["steps"] = arguments.steps or settings["steps"]
    known = load_facts(settings["facts"], arguments.data)
    make = chat_maker(known, settings)
    tokenizer = train_tokenizer(make, known, settings["vocab_size"])
    model = new_model(settings, tokenizer)
    train(model, ChatBatches(make, tokenizer, settings), settings, Path(arguments.output_dir))
    save(model, tokenizer, Path(arguments.output_dir))


def load_facts(source: str, data: str | None) -> Facts:
    """Return the facts that a settings file names."""
    if source == "toy":
        return fact_sources.toy_facts()
    if data is None:
        raise SystemExit(f"facts `{source}` are read from a folder; give it with --data")
    return fact_sources.movie_facts(Path(data))


def chat_maker(known: Facts, settings: dict[str, Any]) -> ChatMaker:
    """Return the source of chats."""
    return ChatMaker(
        known,
        load_domain(settings["domain"]),
        history=tuple(settings["history"]),
        candidates=tuple(settings["candidates"]),
        turns=settings["turns"],
        rule_weights=settings["rule_weights"],
        seed=settings["seed"],
        sentence_share=settings.get("sentence_share", 0.05),
    )


def train_tokenizer(make: ChatMaker, known: Facts, vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on titles and chats, with its special tokens and chat template."""
    bpe = Tokenizer(models.BPE())
    # With the prefix space a title has the same tokens at the start of an answer as in a list.
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    chats = [
        f"{chat.rule}\n{question}\nuser assistant"
        for chat in islice(make, 3000)
        for question, _ in chat.turns
    ]
    bpe.train_from_iterator([*known.titles * 30, *chats], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        additional_special_tokens=special[1:2],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1_000_000,
    )


def new_model(settings: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Return an untrained backbone."""
    torch.manual_seed(settings["seed"])
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=settings["hidden_size"],
        intermediate_size=settings["intermediate_size"],
        num_hidden_layers=settings["num_hidden_layers"],
        num_attention_heads=settings["num_attention_heads"],
        num_key_value_heads=settings["num_attention_heads"],
        max_position_embeddings=settings["max_position_embeddings"],
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


class ChatBatches(torch.utils.data.IterableDataset[dict[str, torch.Tensor]]):
    """Batches of encoded chats, made while the model trains."""

    def __init__(
        self, make: ChatMaker, tokenizer: PreTrainedTokenizerFast, settings: dict[str, Any]
    ) -> None:
        self.make, self.batch_size = make, settings["batch_size"]
        self.encoder, self.pad = ChatEncoder(tokenizer), tokenizer.pad_token_id

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        chats = iter(self.make)
        while True:
            rows = [self.encode(chat) for chat in islice(chats, self.batch_size)]
            longest = max(len(ids) for ids, _ in rows)
            yield {
                "input_ids": torch.tensor(
                    [ids + [self.pad] * (longest - len(ids)) for ids, _ in rows]
                ),
                "labels": torch.tensor(
                    [labels + [IGNORED] * (longest - len(labels)) for _, labels in rows]
                ),
            }

    def encode(self, chat: Chat) -> tuple[list[int], list[int]]:
        """Return the ids of a chat, and its labels: the answers."""
        answers = self.encoder.encode_answers([answer for _, answer in chat.turns])
        heads = [self.encoder.head([{"role": "user", "content": q}]) for q, _ in chat.turns]
        heads = [chat.rule + heads[0], *[f"\n{head}" for head in heads[1:]]]
        asked = self.encoder.tokenizer(heads, add_special_tokens=False)["input_ids"]
        ids: list[int] = []
        labels: list[int] = []
        for question, answer in zip(asked, answers, strict=True):
            ids += question + answer
            labels += [IGNORED] * len(question) + answer
        return ids, labels


def train(
    model: Qwen2ForCausalLM, batches: ChatBatches, settings: dict[str, Any], output_dir: Path
) -> None:
    """Minimise the cross-entropy of the answers; print the loss as it falls."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {device}", flush=True)
    steps = settings["steps"]
    optimizers = new_optimizers(model, settings["learning_rate"])
    schedules = [
        get_cosine_schedule_with_warmup(optimizer, settings["warmup_steps"], steps)
        for optimizer in optimizers
    ]
    losses: list[float] = []
    correct: list[float] = []
    start = time.time()
    loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=1)
    for step, batch in enumerate(islice(loader, steps), start=1):
        with torch.autocast(device, dtype=torch.bfloat16):
            hidden = model.model(input_ids=batch["input_ids"].to(device)).last_hidden_state
            labels = batch["labels"].to(device)[:, 1:]
            wanted = labels != IGNORED
            logits = model.lm_head(hidden[:, :-1][wanted])
        loss = F.cross_entropy(logits.float(), labels[wanted])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        losses.append(loss.item())
        correct.append((logits.argmax(-1) == labels[wanted]).float().mean().item())
        if step % 100 == 0:
            recent = {"loss": sum(losses[-100:]) / 100, "tokens correct": sum(correct[-100:]) / 100}
            shown = ", ".join(f"{name} {value:.3f}" for name, value in recent.items())
            print(f"step {step}/{steps}: {shown}, {time.time() - start:.0f} s", flush=True)
        if step % 2000 == 0:
            save(model, batches.encoder.tokenizer, output_dir)


def new_optimizers(
    model: Qwen2ForCausalLM, learning_rate: float
) -> tuple[torch.optim.Muon, torch.optim.AdamW]:
    """Return Muon for the matrices of the layers and AdamW for embeddings, norms and biases."""
    named = dict(model.model.layers.named_parameters())
    matrices = [weight for weight in named.values() if weight.ndim == 2]
    taken = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in taken]
    muon = torch.optim.Muon(
        matrices, lr=learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
    )
    return muon, torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save the weights in bfloat16: half the size, and no choice changes.

    They are saved in Llama's form, which computes the same: `AutoTokenizer` replaces the tokenizer
    of any model that calls itself qwen2 by Qwen's own splitting of words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = model.config.to_dict()
    shared = {name: given[name] for name in LlamaConfig().to_dict().keys() & given.keys()}
    shared |= {"model_type": "llama", "architectures": None, "attention_bias": True}
    plain = LlamaForCausalLM(LlamaConfig(**shared)).to(torch.bfloat16)
    for layer in plain.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.bias)  # Qwen2 has none
    missing = plain.load_state_dict(model.state_dict(), strict=False).missing_keys
    if not all(name.endswith("o_proj.bias") for name in missing):
        raise RuntimeError(f"these weights were not saved: {missing}")
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"saved to {folder}", flush=True)


if __name__ == "__main__":
    transformers_logging.set_verbosity_error()
    main()
