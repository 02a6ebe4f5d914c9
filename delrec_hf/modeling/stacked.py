"""The stacked model: a LoRA adapter inside the backbone and a soft prompt in front of it.

Both are plain PEFT adapters. LoRA is injected natively into the backbone
(`PreTrainedModel.add_adapter`), the soft prompt is a PEFT prompt-learning model around it: the one
combination that PEFT, transformers' Trainer and TRL's SFTTrainer all carry. The prompt is
embeddings that are read before the tokens (prompt tuning), or a cartridge: the keys and values
themselves that tokens find in every layer.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from peft import PeftConfig, PeftModel, PeftModelForCausalLM, PeftType, PromptLearningConfig
from transformers import DynamicCache, PreTrainedModel

from delrec_hf.errors import InputError
from delrec_hf.labels import IGNORED
from delrec_hf.modeling.adapters import (
    load_lora,
    name_magnitudes_for_transformers,
    read_lora,
    sort_layers,
)
from delrec_hf.modeling.artefact import ArtefactConfig, artefact_folder
from delrec_hf.modeling.backbone import Dtype, load_recorded_backbone
from delrec_hf.modeling.prompt import (
    PROMPT_TYPES,
    keys_and_values,
    load_prompt,
    read_prompt_config,
    save_prompt,
)

PROMPT_FOLDER = "prompt"


class DelRecModel(PeftModelForCausalLM):
    """A backbone with a soft prompt in front and, after stage 2, a LoRA adapter inside.

    Without LoRA its checkpoints hold the soft prompt at their root; with LoRA they hold LoRA at the
    root and the soft prompt in `prompt/`, each as plain PEFT saves it.

    Args:
        backbone: A causal language model, with or without a native LoRA adapter.
        prompt_config: The soft prompt.

    Attributes:
        artefact: The folder that it was loaded from, if it was.
    """

    artefact: Path | None = None

    def __init__(
        self, backbone: PreTrainedModel, prompt_config: PromptLearningConfig, **kwargs: Any
    ) -> None:
        super().__init__(backbone, prompt_config, "default", **kwargs)

    @property
    def backbone(self) -> PreTrainedModel:
        """The language model, LoRA included."""
        return self.base_model

    @property
    def is_cartridge(self) -> bool:
        """Whether the prompt is keys and values instead of embeddings."""
        return bool(self.peft_config["default"].peft_type == PeftType.CARTRIDGE)

    @property
    def soft_prompt(self) -> torch.Tensor:
        """The virtual tokens' embeddings, `(virtual tokens, hidden size)`.

        Of a cartridge their keys and values, `(virtual tokens, layers * 2 * heads * head size)`.
        """
        weight: torch.Tensor = self.prompt_encoder["default"].embedding.weight
        return weight

    @property
    def learned_prompt(self) -> torch.nn.Parameter:
        """What stage 1 learns: the soft prompt; of a cartridge all tokens but the first.

        Tokens attend to the first of a row whatever it says, so PEFT keeps a cartridge's as it is.
        """
        encoder = self.prompt_encoder["default"]
        found: torch.nn.Parameter = (
            encoder.trainable_embedding if self.is_cartridge else encoder.embedding.weight
        )
        return found

    def keys_and_values(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return a cartridge's keys and values, `(1, heads, virtual tokens, head size)` by layer.

        As they stand in a cache: keys are rotated to the places in front of the first token.
        """
        dtype = self.backbone.get_input_embeddings().weight.dtype
        return keys_and_values(self.peft_config["default"], self.soft_prompt.to(dtype))

    @property
    def has_lora(self) -> bool:
        """Whether a LoRA adapter has been injected."""
        return bool(getattr(self.backbone, "_hf_peft_config_loaded", False))

    def train_only(self, part: Literal["prompt", "lora", "nothing"]) -> None:
        """Set `requires_grad`: one part learns, everything else is frozen.

        Wrapping a backbone in a prompt-tuning model freezes its LoRA and leaves the *prompt* as the
        one trainable parameter, so training would run and learn the wrong thing.
        """
        for name, parameter in self.named_parameters():
            is_prompt = parameter is self.learned_prompt
            is_lora = ".lora_" in name
            parameter.requires_grad = (part == "prompt" and is_prompt) or (
                part == "lora" and is_lora
            )

    @classmethod
    def from_pretrained(  # narrower than PeftModel's: the artefact names its own backbone
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        base_model: str | None = None,
        torch_dtype: Dtype | None = None,
        load_in_4bit: bool | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> "DelRecModel":
        """Load an artefact, in the precision that it was trained in: backbone, LoRA, soft prompt.

        LoRA and the soft prompt are float32 whatever the backbone is, as in training.

        Args:
            model: Folder or Hub id of an artefact.
            revision: Commit, tag or branch on the Hub.
            base_model: Backbone to use instead of the recorded one.
            torch_dtype: Dtype of the backbone's weights; by default the one it was trained in.
            load_in_4bit: Quantise the backbone to 4 bits, or do not; by default as it was trained.
            device: Where to load it to; by default a quantised one to the accelerator, if there is
                one, and others to the CPU.
            trust_remote_code: Whether the backbone's repository may run its own code.

        Raises:
            InputError: If there is no artefact, or its backbone is missing or another one.
        """
        folder = artefact_folder(model, revision)
        config = ArtefactConfig.load(folder)
        if not (folder / PROMPT_FOLDER).is_dir():
            raise InputError(
                f"{folder} holds no soft prompt: the folder {PROMPT_FOLDER} is missing"
            )
        backbone = load_recorded_backbone(
            config,
            folder,
            base_model=base_model,
            torch_dtype=torch_dtype,
            load_in_4bit=load_in_4bit,
            device=device,
            trust_remote_code=trust_remote_code,
        )
        stacked: DelRecModel = load_adapters(backbone, folder)
        stacked.train_only("nothing")
        stacked.artefact = folder
        return stacked

    @classmethod
    def with_prompt(cls, backbone: PreTrainedModel, folder: str | Path) -> "DelRecModel":
        """Put a saved soft prompt in front of a backbone.

        Raises:
            InputError: If the folder holds no soft prompt, or one of another width.
        """
        prompt_config = read_prompt_config(Path(folder), backbone)
        prompt_config.inference_mode = True  # keeps PEFT from initialising it again
        stacked = cls(backbone, prompt_config)
        load_prompt(stacked.prompt_encoder["default"], Path(folder))
        return stacked

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the backbone on the soft prompt followed by the tokens.

        PEFT's own forward drops `position_ids`, which shifts every position under left padding;
        here they are counted along the mask, so left and right padding agree.

        Args:
            input_ids: `(batch, length)` int64.
            attention_mask: `(batch, length)`, 1 where a token is real.
            inputs_embeds: `(batch, length, hidden size)` instead of `input_ids`.
            labels: `(batch, length)` int64, -100 where there is nothing to learn.
            position_ids: Refused: they say that sequences were packed.
            kwargs: Handed to the backbone.

        Returns:
            The backbone's output, over virtual tokens + `length` positions; over `length` alone
            behind a cartridge, which is not read but found.
        """
        if position_ids is not None:
            raise InputError(
                "the soft prompt stands in front of each row, so packed or padding-free rows cannot"
                " be told apart; leave position_ids out and set packing and padding_free to false"
            )
        if kwargs.get("past_key_values") is not None:
            raise InputError(
                "past_key_values hold the soft prompt already and it would be read twice; "
                "call generate, which keeps its own"
            )
        if inputs_embeds is None:
            inputs_embeds = self.backbone.get_input_embeddings()(input_ids)
        embeds, attention_mask = self._behind_prompt(inputs_embeds, attention_mask)
        if self.is_cartridge:
            kwargs["past_key_values"] = self._cache(len(embeds))
        elif labels is not None:
            ignored = labels.new_full((len(labels), len(self.soft_prompt)), IGNORED)
            labels = torch.cat([ignored, labels], dim=1)
        position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        return self.backbone(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids[:, -embeds.shape[1] :],
            labels=labels,
            **kwargs,
        )

    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Continue the tokens behind the soft prompt.

        PEFT's own drops the positions here too, and so answers otherwise under left padding.

        Args:
            input_ids: `(batch, length)` int64, padded on the left.
            attention_mask: `(batch, length)`, 1 where a token is real; by default everywhere.
            kwargs: Handed to the backbone's `generate`.

        Returns:
            `(batch, length + new tokens)`: `input_ids` and what follows.
        """
        embeds = self.backbone.get_input_embeddings()(input_ids)
        embeds, attention_mask = self._behind_prompt(embeds, attention_mask)
        if not self.is_cartridge:
            return self.backbone.generate(
                input_ids, inputs_embeds=embeds, attention_mask=attention_mask, **kwargs
            )
        # As transformers goes on from a cache: with ids of what it holds, which are not read, and
        # with a row of it for each beam.
        virtual = attention_mask.shape[1] - input_ids.shape[1]
        held = input_ids.new_zeros(len(input_ids), virtual)
        settings = vars(kwargs.get("generation_config") or self.backbone.generation_config) | kwargs
        beams = max(settings.get(name) or 1 for name in ("num_beams", "num_return_sequences"))
        found = self.backbone.generate(
            torch.cat([held, input_ids], dim=1),
            attention_mask=attention_mask,
            past_key_values=self._cache(len(input_ids) * beams),
            **kwargs,
        )
        return found[:, virtual:]

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        is_main_process: bool = True,
        base_model_name: str | None = None,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        **_: Any,
    ) -> None:
        """Save the adapters as plain PEFT saves them: see the class.

        Args:
            save_directory: Folder, made if it is not there.
            is_main_process: Whether this process is the one that writes.
            base_model_name: How the adapters' configs name the backbone; by default as loaded.
            state_dict: The adapters' weights, where the model's own lie in shards.
        """
        if not is_main_process:
            return
        lora, rows = None, self.soft_prompt
        if state_dict is not None:
            lora = {name.removeprefix("base_model."): one for name, one in state_dict.items()}
            rows = state_dict["prompt_encoder.default.embedding.weight"]
        folder = Path(save_directory)
        name = base_model_name or self.backbone.name_or_path
        if self.has_lora:
            self.backbone.save_pretrained(folder, state_dict=lora)
            for config in self.backbone.peft_config.values():
                named = copy.deepcopy(config)
                named.base_model_name_or_path = name
                named.save_pretrained(str(folder))
            name_magnitudes_for_transformers(folder)
            sort_layers(folder)
        prompt_folder = folder / PROMPT_FOLDER if self.has_lora else folder
        save_prompt(self.peft_config["default"], rows, prompt_folder, name)

    def load_adapter(self, model_id: str | Path, *_: Any, **__: Any) -> None:
        """Read one saved adapter back into this model, in place.

        The Trainer calls this on resume and for the best checkpoint, once for the checkpoint's
        root and once for its `prompt/`; neither may become a second adapter.
        """
        folder = Path(model_id)
        if PeftConfig.from_pretrained(str(folder)).peft_type in PROMPT_TYPES:
            load_prompt(self.prompt_encoder["default"], folder)
            return
        read_lora(self.backbone, folder)

    def push_to_hub(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: what PEFT would send lacks the facts, the tokenizer and the card.

        Raises:
            InputError: Always, with the way to send the whole artefact.
        """
        raise InputError(
            "push_to_hub would send half of a DELRec model; use delrec_hf.hub.push.push(model, "
            "repo_id), or `delrec push` for a folder"
        )

    def create_or_update_model_card(self, *_: Any, **__: Any) -> None:
        """Write no card: PEFT's knows nothing of the soft prompt; delrec_hf.hub writes ours."""

    def _behind_prompt(
        self, embeds: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the soft prompt in front of embeddings and mask, before any padding.

        A cartridge stands in the mask alone.
        """
        rows, length = embeds.shape[:2]
        if attention_mask is None:
            attention_mask = embeds.new_ones(rows, length, dtype=torch.long)
        prompt = self.soft_prompt
        seen = attention_mask.new_ones(rows, len(prompt))
        if not self.is_cartridge:
            embeds = torch.cat([prompt.to(embeds.dtype).expand(rows, -1, -1), embeds], dim=1)
        return embeds, torch.cat([seen, attention_mask], dim=1)

    def _cache(self, rows: int) -> DynamicCache:
        """Return a cache that holds the cartridge in front of so many rows."""
        states = self.keys_and_values()
        return DynamicCache(
            [tuple(one.expand(rows, -1, -1, -1) for one in state) for state in states]
        )


def load_adapters(backbone: PreTrainedModel, folder: str | Path) -> PeftModel:
    """Put the saved adapters of a folder on a backbone: LoRA, and a soft prompt if there is one.

    Both are float32 whatever the backbone's dtype, as they were trained and validated.

    Args:
        backbone: The language model; LoRA is injected into it, in place.
        folder: An artefact, or LoRA alone as PEFT saves it.

    Returns:
        A `DelRecModel`, or without a soft prompt PEFT's model; frozen and in evaluation mode.

    Raises:
        InputError: If an adapter is missing or does not fit the backbone.
    """
    folder = Path(folder)
    lora = load_lora(backbone, folder)
    if not (folder / PROMPT_FOLDER).is_dir():
        return lora
    # As after `add_adapter`: transformers saves LoRA and switches it off where this is set.
    backbone._hf_peft_config_loaded = True
    return DelRecModel.with_prompt(backbone, folder / PROMPT_FOLDER).eval()
