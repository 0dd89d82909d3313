"""nnU-Net's networks: parameters of the same names and shapes as in its own library, and the same logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from medseg.errors import ConfigError
from medseg.networks.catalogue import build_network
from tests.models.importers.facts import FACTS, ours, strip, theirs
from tests.models.importers.planted_weights import planted_input


@pytest.mark.parametrize("kind", FACTS)
def test_weights_of_nnunet_fit_strictly_and_give_its_logits(kind: str) -> None:
    facts = FACTS[kind]
    network = build_network(facts["network"], ours(facts)).eval()
    network.load_state_dict(strip(theirs(facts)), strict=True)
    with torch.inference_mode():
        logits = network(planted_input(facts["input_shape"]))[0]
    assert logits.shape == (facts["classes"], *facts["input_shape"])
    np.testing.assert_allclose(logits.reshape(-1)[:: facts["every"]], facts["logits"], atol=1e-4)


@pytest.mark.parametrize("change", [{"convs": [1, 1]}, {"kernels": [[3, 3, 3]]}, {"decoder_convs": [1]}])
def test_lists_that_do_not_fit_the_stages_are_named(change: dict[str, Any]) -> None:
    options = ours(FACTS["plain_conv_unet"]) | change
    with pytest.raises(ConfigError, match=next(iter(change))):
        build_network("PlainConvUNet", options)


def test_an_unknown_norm_is_named() -> None:
    with pytest.raises(ConfigError, match="norm must be one of instance, batch or null, not 'layer'"):
        build_network("PlainConvUNet", ours(FACTS["plain_conv_unet"]) | {"norm": "layer"})
