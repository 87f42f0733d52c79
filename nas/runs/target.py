"""Define the target of a search: a skeleton and a latency budget."""

from __future__ import annotations

from dataclasses import dataclass

SKELETONS = ("large", "small")
# A network measured twice differs by one or two percent. A network that is shipped is measured this share below its
# budget, so that a repetition keeps the budget too.
MARGIN = 0.0125


@dataclass(frozen=True, slots=True)
class Target:
    """One network to be found: the most accurate one of a skeleton within a budget.

    `one_of_several` says that the run has other budgets for the same skeleton. `flag` is the flag that sets the
    budget, for messages.
    """

    skeleton: str  # "large" or "small"
    budget_ms: float  # normalised milliseconds, as the user gave it
    one_of_several: bool = False
    flag: str = "--budget-ms"

    @property
    def limit_ms(self) -> float:
        """Return the latency that a measurement must keep: the budget less the noise of measurements."""
        return (1 - MARGIN) * self.budget_ms

    @property
    def repeated_limit_ms(self) -> float:
        """Return the latency that a second measurement of the same network must keep: it may use half of the margin."""
        return (1 - MARGIN / 2) * self.budget_ms

    @property
    def network_name(self) -> str:
        """Return the name of the network that is found: "large_20ms"."""
        return f"{self.skeleton}_{self.budget_ms:.3g}ms"

    @property
    def name(self) -> str:
        """Return the name of the target's files: "large", or "large_4ms" where a run has several budgets."""
        return self.network_name if self.one_of_several else self.skeleton

    @property
    def title(self) -> str:
        """Return the name for readers: "Large", or "Large at 4 ms" where a run has several budgets."""
        return self.skeleton.capitalize() + (f" at {self.budget_ms:.3g} ms" if self.one_of_several else "")
