"""A network trained once more on the clips that chose its best epoch, too: small sets have none to spare."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reelbank.heads.config import TrainConfig
from reelbank.heads.examples.prepared import Prepared
from reelbank.heads.examples.splits import Partition
from reelbank.heads.training.job import make_job
from reelbank.heads.training.trainer import Progression, Trainer


def refits(config: TrainConfig, partition: Partition) -> bool:
    """Whether the validation clips are fitted after the choice: never where they are what is reported."""
    return config.data.refit == "yes" and not partition.val_is_reported


def refitted(prepared: Prepared, partition: Partition, chosen: Progression) -> Trainer:
    """A head trained from the start on train and validation clips, for as many epochs as the kept weights had."""
    optimizer = prepared.config.optimizer
    epochs = chosen.best_epoch if optimizer.keep == "best" else chosen.epoch
    config = prepared.config.but(epochs=epochs, early_stop_epochs=0, keep="last")
    both = replace(partition, train=np.union1d(partition.train, partition.val))
    trainer = Trainer(make_job(replace(prepared, config=config), both))
    trainer.train(lambda record: None)
    return trainer
