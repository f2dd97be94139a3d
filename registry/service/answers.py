"""The shapes of what HTTP answers and takes; from them the OpenAPI document is made. No logic."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from registry.service import links

Name = Annotated[str, Field(pattern=links.NAME, description="A model's name.")]
IngredientKind = Literal["base", "adapter", "checkpoint", "merge"]
Time = Annotated[float, Field(description="Seconds since 1970.")]
Commit = Annotated[str, Field(description="A Git commit.")]
Unknown = Annotated[
    list[dict[str, Any]],
    Field(description="Live models of which it cannot be told what all they contain."),
]


class Error(BaseModel):
    """What is wrong, and what to do about it."""

    error: str
    hint: str


class Health(BaseModel):
    """Whether the process answers, or is ready: acting, standby, starting or draining."""

    status: str


class Condition(BaseModel):
    """One of Ready, Reconciling and Stalled, since a time."""

    type: Literal["Ready", "Reconciling", "Stalled"]
    status: bool
    reason: str
    message: str
    since: Time


class Suspension(BaseModel):
    """Somebody asked to leave the service or a model alone."""

    reason: str
    since: Time


class Trouble(BaseModel):
    """Something that does not work since a time."""

    reason: str
    message: str
    since: Time
    commit: Commit | None


class Status(BaseModel):
    """How the service stands.

    `observed_commit` is the one that all other answers are about, `seen_commit` the branch's own
    when it was last looked at; they differ while the service is stalled.
    """

    repository: str
    branch: str
    observed_commit: Commit | None
    seen_commit: Commit | None
    looked_at: Time | None
    synced_at: Time | None
    conditions: list[Condition]
    suspended: Suspension | None
    unreachable: Trouble | None
    models: dict[str, int] = Field(description="Number of models by state.")
    job: int | None = Field(description="The running job.")


class Reason(BaseModel):
    """Why a model has to be changed: field, old and new value."""

    kind: str
    field: str
    old: Any
    new: Any


class Model(BaseModel):
    """A model: what is live of it, how it stands, what the plan says."""

    model: str
    state: str = Field(
        description="up-to-date, due, failed, blocked, suspended, revoked or undeclared."
    )
    note: str = Field(description="The state as `registry status` tells it.")
    action: str
    reasons: list[Reason]
    method: str | None
    expression: str | None
    model_digest: str | None
    metrics: dict[str, Any]


class Models(BaseModel):
    """All models at a commit."""

    commit: Commit
    models: list[Model]


class Attempt(BaseModel):
    """What a job did with a model; the same again and again is one attempt with a count."""

    job: int
    commit: Commit
    action: str
    outcome: str = Field(description="done, failed (not tried again as it is) or later.")
    message: str
    hint: str
    first: Time
    last: Time
    count: int


class ModelDetail(Model):
    """A model with its last attempts, the newest first."""

    commit: Commit
    suspended: Suspension | None
    attempts: list[Attempt]


class Change(BaseModel):
    """A row of the plan."""

    model: str
    action: str
    reasons: list[Reason]
    key: str | None = None


class Plan(BaseModel):
    """The plan, as `registry plan --format json` has it."""

    format_version: int
    commit: Commit
    digest: str
    changes: list[Change]
    summary: dict[str, int]


class Lineage(BaseModel):
    """The ingredients of a model at any depth, as `registry lineage --format json` has them."""

    commit: Commit
    model: dict[str, Any]


class Impact(BaseModel):
    """Every model that contains an ingredient, as `registry impact --format json` has it."""

    commit: Commit
    ingredients: list[dict[str, Any]]
    unknown: Unknown


class Held(BaseModel):
    """The number of models that contain an ingredient at any depth: live ones, and as declared."""

    live: int
    declared: int


class Ingredient(BaseModel):
    """A base, an adapter or a checkpoint; `version` is null for a base."""

    kind: Literal["base", "adapter", "checkpoint"]
    name: str
    version: int | None = None
    digest: str
    revoked: str = Field(default="", description="Why it was revoked; empty if it was not.")
    description: str
    license: str
    models: Held


class Ingredients(BaseModel):
    """Everything that models are made of, used or not."""

    commit: Commit
    ingredients: list[Ingredient]
    unknown: Unknown


class Result(BaseModel):
    """What became of a model in a job, as `registry sync --format json` has it."""

    model: str
    action: str
    exit_code: int
    model_digest: str | None
    note: str
    problem: str
    hint: str


class Job(BaseModel):
    """One `registry sync`; `models` is empty for all."""

    id: int
    trigger: str
    commit: Commit
    models: list[str]
    started: Time
    ended: Time | None
    outcome: str = Field(
        description="running, done, failed, refused, later, bug, interrupted or died."
    )
    exit_code: int | None
    results: list[Result]


class Jobs(BaseModel):
    """The jobs that are remembered, the newest first, without their results."""

    jobs: list[Job]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SyncBody(_Body):
    """Which models to try again though they failed; all if there is no name."""

    models: list[Name] = Field(default=[], max_length=10_000)


class SuspendBody(_Body):
    """What to leave alone, and why: everything without a model."""

    model: Name | None = None
    reason: str = Field(min_length=1, max_length=500)


class ResumeBody(_Body):
    """What to go on with: without a model everything, a rewritten branch and a bug too."""

    model: Name | None = None


class Asked(BaseModel):
    """What was asked for; it happens soon."""

    asked: str
