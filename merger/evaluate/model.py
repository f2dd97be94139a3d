"""A language model opened for reading: tokens of a prompt, tokens to text, one forward pass.

Knows no suite and no metric. Nothing in a model folder is ever executed and no network is used.
Shape letters: B rows of a batch, T tokens of this pass, P tokens seen before, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from merger.evaluate.errors import EvaluationError

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """A model in float32 with its tokenizer; `end` are the tokens that end an answer."""

    network: Any
    tokenizer: Any
    device: torch.device
    end: frozenset[int]
    accepted: frozenset[str]

    def render(self, text: str, system: str | None) -> Tokens:
        """Return the tokens of a prompt in the chat template; as it is where there is none.

        A system message stands before the prompt also where there is no template.
        """
        if not self.tokenizer.chat_template:
            return self.tokens(text if system is None else f"{system}\n\n{text}", is_start=True)
        messages = [] if system is None else [{"role": "system", "content": system}]
        messages.append({"role": "user", "content": text})
        # The template writes the special tokens itself; the tokenizer must not add them again.
        rendered = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return self.tokens(rendered, is_start=False)

    def tokens(self, text: str, *, is_start: bool) -> Tokens:
        """Return the tokens of a text, with those that open a sequence if it is a start."""
        return tuple(self.tokenizer(text, add_special_tokens=is_start)["input_ids"])

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of an answer's tokens without special ones."""
        decoded: str = self.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return decoded

    @property
    def context(self) -> int | None:
        """Return the most tokens that the model reads, None if it does not say."""
        limit = getattr(self.network.config.get_text_config(), "max_position_embeddings", None)
        return limit if isinstance(limit, int) else None

    @property
    def vocabulary(self) -> int:
        """Return how many logits stand at one position."""
        size: int = self.network.config.get_text_config().vocab_size
        return size

    @property
    def can_skip(self) -> bool:
        """Return whether padding may stand between tokens and not only before them.

        It may where a token's place is its position alone. A sliding window counts places in the
        cache, padding too, and would see less of what comes before.
        """
        config = self.network.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        layers = getattr(config, "layer_types", None) or ["sliding" if window else "full_attention"]
        return "position_ids" in self.accepted and set(layers) == {"full_attention"}

    @property
    def can_share(self) -> bool:
        """Return whether several threads may call `forward` at once: on a processor, mostly.

        Rotary embeddings that follow the length of a prompt keep the last one in the network.
        """
        config = self.network.config.get_text_config()
        rotary = getattr(config, "rope_parameters", None) or {}
        follows = {"dynamic", "longrope"} & set(_names_in(rotary))
        return self.device.type == "cpu" and not follows

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor, cache: Any, *, keep: int = 0
    ) -> tuple[torch.Tensor, Any]:
        """Return the logits of the last `keep` positions (0: all), float32, and the grown cache.

        tokens [B, T], mask [B, P+T] with 0 on padding wherever it stands -> logits [B, keep, V].
        """
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        given = {
            "input_ids": tokens,
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": cache,
            "logits_to_keep": keep,
            "use_cache": True,
        }
        # Families differ in what they take: ALiBi models know no position_ids.
        output = self.network(**{k: v for k, v in given.items() if k in self.accepted})
        return output.logits[:, -keep:], output.past_key_values


def open_model(folder: Path, device: str) -> Model:
    """Open a model folder in float32 on `device`: auto, cpu or cuda."""
    import transformers
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # standard error is for people and logs
    try:
        network, loading = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        msg = f"model: expected a folder that transformers opens, found {_first_line(error)}"
        raise EvaluationError(msg) from error
    # transformers fills what a file lacks with random numbers and only warns.
    for key in ("missing_keys", "mismatched_keys"):
        if loading[key]:
            msg = f"model: {key.replace('_', ' ')} in the weights: {min(loading[key])}"
            raise EvaluationError(msg)
    chosen = torch.device(_device(device))
    network = network.eval().to(chosen)
    return Model(network, tokenizer, chosen, _end(network, tokenizer), _accepted(network))


def _names_in(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for one in value.values():
            yield from _names_in(one)
    elif isinstance(value, str):
        yield value


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _end(network: Any, tokenizer: Any) -> frozenset[int]:
    named = network.generation_config.eos_token_id
    several = named if isinstance(named, list) else [named]
    return frozenset(token for token in (*several, tokenizer.eos_token_id) if token is not None)


def _accepted(network: Any) -> frozenset[str]:
    return frozenset(inspect.signature(network.forward).parameters)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
