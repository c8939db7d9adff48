"""How a removal ended."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Status(StrEnum):
    """How a removal ended."""

    REGISTERED = "registered"
    RETRAINED = "retrained"
    REFUSED = "refused"
    ALREADY_DONE = "already_done"
    NOTHING_TO_REMOVE = "nothing_to_remove"


class RemovalOutcome(BaseModel):
    """How one removal ended, and what it made. Holds no sample or subject ids."""

    model_config = ConfigDict(frozen=True)

    status: Status
    removal_key: str
    model: str
    parent_version: str
    version: str | None = Field(description="The version without the removed samples; none where refused.")
    run_id: str | None
    nothing_to_forget: bool = Field(
        False, description="Whether the parent already said what one who never saw the removed samples would."
    )
    removed: int = Field(0, description="Samples removed by this request.")
    already_removed: int = Field(0, description="Requested samples that an earlier version had removed.")
    unknown: int = Field(0, description="Requested ids that are not in the training data.")
    reasons: tuple[str, ...] = Field((), description="Why it was refused, with figures.")
    advice: str = ""

    @property
    def headline(self) -> str:
        """The outcome in one line."""
        match self.status:
            case Status.REGISTERED:
                return f"{self.model}: version {self.version} registered"
            case Status.RETRAINED:
                return f"{self.model}: retrained without the samples, as version {self.version}"
            case Status.ALREADY_DONE:
                return f"{self.model}: already done, by version {self.version}"
            case Status.NOTHING_TO_REMOVE:
                return f"{self.model}: nothing to remove, none of the ids is in the training data"
            case Status.REFUSED:
                return f"{self.model}: refused"
