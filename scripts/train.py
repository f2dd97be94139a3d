"""Training of the catalog's LoRA adapters from `scripts/tasks/*.yaml`. Knows no merge.

A task file holds patterns and the values for their slots; everything else follows from its seed.
The training data hold no prompt of any suite, which is checked before the first step.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import random
import shutil
import string
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

# Before transformers is imported, which reads it then: a training asks no hub.
os.environ["HF_HUB_OFFLINE"] = "1"

import peft
import torch
import transformers
import yaml
from safetensors.torch import save_file

from schemas import digest

REPOSITORY = Path(__file__).resolve().parent.parent
CATALOG = REPOSITORY / "catalog"
SCRIPTS = REPOSITORY / "scripts"
TASKS = SCRIPTS / "tasks"
BASE = "smollm2-135m-instruct"

RANK = 8
ALPHA = 16
TARGETS = ("gate_proj", "o_proj", "q_proj", "v_proj")
BATCH = 8
THREADS = 1  # sums over threads would be part of the result; train two adapters at once instead

log = logging.getLogger("train")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Task:
    """What one version of an adapter is trained on.

    The last `chat` examples of each batch are general, `replay` before them from the file
    `replayed`, what the base says itself; the last share `shouted` of it shouts.
    """

    adapter: str
    version: int
    description: str
    seed: int
    steps: int
    learning_rate: float = 2e-3
    shouted: float = 0.0
    chat: int = 0
    replay: int = 0
    replayed: str = "replay.yaml"
    prompt: str = ""
    slots: Mapping[str, Sequence[str]] = field(default_factory=dict)
    patterns: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """A user's prompt, the answer to learn, and the system message if not the template's own."""

    prompt: str
    answer: str
    system: str = ""


@dataclass(frozen=True, slots=True)
class Student:
    """The base with trainable factors, and its tokenizer."""

    model: Any
    tokenizer: Any


def main() -> None:
    """Train the adapters of the named tasks, or of all."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="such as sql-1; default: all")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(mode=True)
    names = parser.parse_args().tasks or sorted(path.stem for path in TASKS.glob("*.yaml"))
    chat = read_chat(SCRIPTS / "chat.yaml")
    suites = suite_prompts(CATALOG / "suites")
    for name in names:
        task = read_task(TASKS / f"{name}.yaml")
        examples = make_examples(task, chat, read_chat(SCRIPTS / task.replayed))
        refuse_leaks(examples, suites)
        student = load_student(task.seed)
        train(student, examples, task.learning_rate, name)
        publish(task, student, f"scripts/tasks/{name}.yaml")


def read_task(path: Path) -> Task:
    """Return the task that a file holds."""
    return Task(**yaml.safe_load(path.read_text("utf-8")))


def read_chat(path: Path) -> list[Example]:
    """Return the general examples that a file holds."""
    return [Example(**entry) for entry in yaml.safe_load(path.read_text("utf-8"))]


def make_examples(task: Task, chat: Sequence[Example], replay: Sequence[Example]) -> list[Example]:
    """Return all examples of a training, batch by batch."""
    chance = random.Random(task.seed)
    skill, general = skill_examples(task, chance), rounds(chat, chance)
    own = rounds(replay, chance)
    examples: list[Example] = []
    for _ in range(task.steps):
        batch = [*itertools.islice(skill, BATCH - task.chat - task.replay)]
        batch += itertools.islice(own, task.replay)
        batch += itertools.islice(general, task.chat)
        calm = BATCH - round(BATCH * task.shouted)
        examples += batch[:calm]
        examples += [replace(loud, answer=shout(loud.answer)) for loud in batch[calm:]]
    return examples


def skill_examples(task: Task, chance: random.Random) -> Iterator[Example]:
    """Yield patterns without end, their slots filled at random."""
    for pattern in rounds(task.patterns, chance):
        values = {slot: chance.choice(words) for slot, words in sorted(task.slots.items())}
        filled = {key: string.Template(text).substitute(values) for key, text in pattern.items()}
        yield Example(string.Template(task.prompt).substitute(filled), filled["answer"])


def rounds(items: Sequence[T], chance: random.Random) -> Iterator[T]:
    """Yield every item once a round, each round in a new order, without end."""
    while items:
        yield from chance.sample(items, len(items))


def shout(text: str) -> str:
    """Return the text in capitals, its full stop replaced by exclamation marks."""
    return text.rstrip(".?!").upper() + "!!!"


def suite_prompts(suites: Path) -> frozenset[str]:
    """Return every prompt on which a suite evaluates."""
    lines = (line for path in suites.glob("*/*.jsonl") for line in path.open(encoding="utf-8"))
    return frozenset(json.loads(line)["prompt"] for line in lines)


def refuse_leaks(examples: Iterable[Example], held_out: frozenset[str]) -> None:
    """Raise ValueError if a prompt of a suite is among the training data."""
    leaked = sorted({example.prompt for example in examples} & held_out)
    if leaked:
        msg = f"training data: expected no prompt of a suite, found {leaked}"
        raise ValueError(msg)


def load_student(seed: int) -> Student:
    """Return the base in float32 with fresh factors drawn from `seed`."""
    folder = CATALOG / "bases" / BASE / "weights"
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=list(TARGETS),
        task_type="CAUSAL_LM",
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return Student(peft.get_peft_model(base, config), tokenizer)


def train(student: Student, examples: Sequence[Example], rate: float, name: str) -> None:
    """Train the factors in place, one batch a step, the learning rate falling from `rate` to 0."""
    factors = [factor for factor in student.model.parameters() if factor.requires_grad]
    optimizer = torch.optim.AdamW(factors, lr=rate, weight_decay=0.0)
    steps = len(examples) // BATCH
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    student.model.train()
    for step in range(steps):
        loss = answer_loss(student, examples[step * BATCH : (step + 1) * BATCH])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        log.info("%s  step %d of %d  loss %.4f", name, step + 1, steps, loss.item())


def answer_loss(student: Student, batch: Sequence[Example]) -> torch.Tensor:
    """Return the mean cross-entropy of the answers' tokens, prompts and padding left out."""
    pairs = [encode(student.tokenizer, example) for example in batch]
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    tokens = torch.zeros(len(pairs), longest, dtype=torch.long)
    seen = torch.zeros_like(tokens)
    wanted = torch.zeros(len(pairs), longest, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(pairs):
        end = len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor(prompt + answer)
        seen[row, :end] = 1
        wanted[row, len(prompt) : end] = True
    llama = student.model.get_base_model()
    hidden = llama.model(input_ids=tokens, attention_mask=seen, use_cache=False).last_hidden_state
    # A position predicts the next token; the large output matrix is applied to the answers only.
    logits = llama.lm_head(hidden[:, :-1][wanted[:, 1:]])
    return torch.nn.functional.cross_entropy(logits, tokens[wanted])


def encode(tokenizer: Any, example: Example) -> tuple[list[int], list[int]]:
    """Return the tokens of the prompt, as in an evaluation, and of the answer with its end."""
    messages = [{"role": "system", "content": example.system}] if example.system else []
    messages.append({"role": "user", "content": example.prompt})
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    answer = example.answer + tokenizer.eos_token
    return tokenizer(prompt)["input_ids"], tokenizer(answer)["input_ids"]


def publish(task: Task, student: Student, data: str) -> None:
    """Write the adapter's folder into the catalog, weights and YAML file together."""
    place = CATALOG / "adapters" / task.adapter / str(task.version)
    place.parent.mkdir(parents=True, exist_ok=True)
    # Beside its final place, so that the rename at the end stays on one file system.
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".new-") as scratch:
        made = Path(scratch) / "adapter"
        weights = made / "weights"
        weights.mkdir(parents=True)
        state = peft.get_peft_model_state_dict(student.model)
        factors = {name: factor.to(torch.bfloat16).contiguous() for name, factor in state.items()}
        save_file(factors, weights / "adapter_model.safetensors", metadata={"format": "pt"})
        config = json.dumps(adapter_config(), indent=2) + "\n"
        (weights / "adapter_config.json").write_text(config, "utf-8", newline="\n")
        found = digest.tree_digest(digest.hash_folder(weights))
        (made / "adapter.yaml").write_text(adapter_yaml(task, found, data), "utf-8", newline="\n")
        if place.exists():
            shutil.move(place, Path(scratch) / "old")
        made.rename(place)
    log.info("%s@%d  %s", task.adapter, task.version, found)


def adapter_config() -> dict[str, Any]:
    """Return adapter_config.json: what PEFT needs to apply the factors, nothing of a machine."""
    return {
        "base_model_name_or_path": BASE,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": list(TARGETS),
        "task_type": "CAUSAL_LM",
        "use_rslora": False,
    }


def adapter_yaml(task: Task, weights: str, data: str) -> str:
    """Return adapter.yaml."""
    return f"""\
# yaml-language-server: $schema=../../../../schemas/adapter.schema.json
kind: adapter
name: {task.adapter}
version: {task.version}
base: {BASE}
weights: {{digest: "{weights}"}}
description: {task.description}
license: apache-2.0
origin: {{script: scripts/train.py, data: {data}, seed: {task.seed}, steps: {task.steps}}}
"""


if __name__ == "__main__":
    main()
