"""Masks against references: Dice, surface Dice and HD95, with nothing dropped."""

from medseg.evaluation.arrays import OrganScore, evaluate_arrays
from medseg.evaluation.metrics import Figures
from medseg.evaluation.policy import EmptyPolicy, Outcome, Settings
from medseg.evaluation.run import evaluate
from medseg.evaluation.scorecard import Scorecard
