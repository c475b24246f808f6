"""What a recipe is asked for. The command's options are made from these fields; no torch is loaded here."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import Any

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.sweeps.config import MembersConfig
from reelbank.store.options import Flat, check_options, option


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(Flat):
    """A named experiment, the stores it is trained on, and what is written of it.

    `RecipeConfig.of(store=(path,), recipe="calories/table-3.1")` takes the fields of all parts by their names.

    Attributes:
        train: stores, selection, device and whatever else the recipe does not decide; `train.run` is of the recipe.
    """

    train: TrainConfig
    recipe: str = option(
        MISSING,
        "--recipe",
        "train the rows of a named experiment (`reelbank recipes`) and write its report into --run",
        group="Recipes: named experiments",
    )
    quick: bool = option(
        False, "--quick", "recipe: a twentieth of the epochs on at most 64 training clips, said in the report"
    )
    markdown: bool = option(False, "--markdown", "recipe: also write its table as table.md")
    latex: bool = option(False, "--latex", "recipe: also write its table as table.tex")
    members: MembersConfig = MembersConfig()

    def __post_init__(self) -> None:
        check_options(self, TrainingError)

    def identity(self) -> dict[str, Any]:
        """What a resumed recipe must share: repeats, tables and the way of training may change."""
        return {**self.train.identity(), "recipe": self.recipe, "quick": self.quick}
