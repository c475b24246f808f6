"""What a recipe is asked for. The command's options are made from these fields; no torch is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any

from reelbank.heads.config import TrainConfig
from reelbank.heads.errors import TrainingError
from reelbank.heads.recipes import RECIPES
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
        False,
        "--quick",
        "recipe: a twentieth of the epochs on at most 64 training clips, said in the report; of heads on arrays "
        "at most 200 clip-passes in all, 7 frames and the corners of a grid, and how long the whole takes",
    )
    backbone_weights: str = option(
        "",
        "--backbone-weights",
        "recipe of heads on arrays: the file or run of which the stores' backbone has its weights",
    )
    markdown: bool = option(False, "--markdown", "recipe: also write its table as table.md")
    latex: bool = option(False, "--latex", "recipe: also write its table as table.tex")
    members: MembersConfig = MembersConfig()

    def __post_init__(self) -> None:
        check_options(self, TrainingError)

    @classmethod
    def of(cls, **values: Any) -> RecipeConfig:
        """A configuration from the fields of its parts; where `repeats` is not given the recipe has its own number.

        Raises TypeError for a name that is none.
        """
        return super().of(**{**own_repeats(values), **values})

    def identity(self) -> dict[str, Any]:
        """What a resumed recipe must share: repeats, tables and the way of training may change."""
        return {**self.train.identity(), "recipe": self.recipe, "quick": self.quick}


def own_repeats(values: Mapping[str, Any]) -> dict[str, int]:
    """The repeats of the recipe that `values`, fields of RecipeConfig, name; one of its short form."""
    chosen = RECIPES.get(str(values.get("recipe")))
    return {} if chosen is None or values.get("quick") else {"repeats": chosen.repeats}
