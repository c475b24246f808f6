"""How the study of calories from video is judged: two test sets, seven numbers, guessers beside them.

SYSTEMS.md section 1: metrics 1.10, early stop 1.9, rule of choice 1.15, baselines 1.16.
"""

from __future__ import annotations

from reelbank.heads.recipes.study import Column, Part, Selection, Study

CONSTANT = "constant_median"

CALORIES = Study(
    name="calories",
    parts=(
        Part(name="known", split="test", said="known activities", what="clips of activities that training knows"),
        Part(name="unknown", split="unknown", said="unknown activities", what="clips of other activities"),
    ),
    columns=(
        Column(key="accuracy", head="acc. %", part="known", metric="accuracy", scale=100),
        Column(key="mae_known", head="MAE known", part="known", metric="mae", beats=CONSTANT),
        Column(key="spc_known", head="SPC known", part="known", metric="spc_bins", digits=3, least_digits=3),
        Column(key="nll_known", head="NLL known", part="known", metric="nll", digits=2, least_digits=2),
        Column(key="mae_unknown", head="MAE unkn.", part="unknown", metric="mae", beats=CONSTANT),
        Column(key="spc_unknown", head="SPC unkn.", part="unknown", metric="spc_bins", digits=3),
        Column(key="nll_unknown", head="NLL unkn.", part="unknown", metric="nll", digits=2, least_digits=2),
    ),
    selection=Selection(
        validation="val_mae",
        column="mae_unknown",
        avoids_overfit=True,
        protocol=(
            "schedules watch the known test set, the last weights are kept, and the row with the lowest error on the "
            "unknown test set is called best. The numbers are too good for clips that nobody has seen."
        ),
        protocol_options={"keep": "last"},
    ),
    baselines={
        CONSTANT: "constant: median of train",
        "random_training_label": "random training label",
        "uniform_random_bin": "random bin",
        "class_mean_oracle": "class-mean oracle",
        "label_marginal": "label marginal of train",
        "majority_class": "most frequent class",
    },
    # The text of the publication means the correlation over clips; its tables behave like that over bins.
    beside=(
        Column(key="spc_values_known", head="Spearman over clips", part="known", metric="spc_values", digits=3),
        Column(key="spc_values_unknown", head="Spearman over clips", part="unknown", metric="spc_values", digits=3),
    ),
    beside_notes={"spc_values": "the tables': over bins"},
    by_class={CONSTANT: "constant", "class_mean_oracle": "class-mean oracle"},
    needs_target=True,
    axis=(0.0, 1000.0),
    captions={
        "loss.png": "Training and validation loss of every row that was trained; full dot: the epoch that it keeps, "
        "hollow: the one with the lowest validation loss",
        "validation.png": "Mean absolute error on validation of every row that was trained; dashed: the constant "
        "predictor on the same clips",
        "compared.png": "Figure 3.50: predicted and true values, known activities left, unknown right; Adam above, the "
        "best RAdam of table 3.4 below",
        "distributions.png": "Predicted and true values of both test sets: the row named, in grey the others, cut at "
        "the top where they say about the same for every clip",
        "classes.png": "Mean absolute error by class. The oracle says the mean of the clips of that class in the test "
        "set: 0 for one clip",
        "calibration.png": "Calibration: on the diagonal, predicted distributions are as wide as they should be; above "
        "it the true values are lower than predicted, below it higher",
        "tsne.png": "t-SNE of the mean vectors by class (figure 2.5), of the first row's stores; the numbers stand at "
        "the classes' medians",
    },
    notes=("SPC is Spearman's correlation over the bins of each clip, as the published tables appear to have it.",),
)
