"""The specification's calls, as written there. `slow` ones build the whole ResNet-152 and BERT."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("transformers")
from medseg.errors import ConfigError, ModelIntegrityError, UnknownModelError
from vlretrieval.image_encoder import VisionEncoder, count_weights
from vlretrieval.losses import DynamicLoss
from vlretrieval.model import VLModel
from vlretrieval.text_encoder import TextEncoder, train_vocabulary


@pytest.fixture(scope="module")
def small() -> VLModel:
    torch.manual_seed(0)
    return VLModel(VisionEncoder("resnet10"), TextEncoder("scratch"), embed_dim=32, fused_dim=64).eval()


@pytest.mark.slow
def test_the_calls_as_written() -> None:
    torch.manual_seed(0)
    images, texts = torch.randn(2, 1, 32, 32, 32), ["Right parotid enlarged.", "Normal."]
    with torch.no_grad():
        model = VLModel().eval()
        assert VisionEncoder(pretrained="resnet152").eval()(images).shape == (2, 2048)
        assert TextEncoder(pretrained="bert-base").eval()(texts).shape == (2, 768)
        fused = model(images, texts)
    assert fused.shape == (2, 1024)
    assert (model.fusion[0].in_features, model.fusion[0].out_features) == (2048 + 768, 1024)  # type: ignore[union-attr]
    assert count_weights(model.vision_encoder) > 100e6
    assert count_weights(model.text_encoder.network) > 80e6


def test_the_same_with_small_towers(small: VLModel) -> None:
    images, texts = torch.randn(3, 1, 32, 32, 24), ["Goitre.", "No goitre.", "腮腺增大。右侧。"]
    with torch.no_grad():
        assert small(images, texts).shape == (3, 64)
        seen, said = small.encode_images(images), small.encode_texts(texts)
        assert small.match(small(images, texts)).shape == (3,)
    for vectors in (seen, said):
        assert vectors.shape == (3, 32)
        assert vectors.norm(dim=1) == pytest.approx(torch.ones(3), abs=1e-5)


def test_the_matching_head_orders_images_by_the_text(small: VLModel) -> None:
    """A linear score of the fusion would rank images the same for every text; this one does not add up."""
    images = torch.randn(2, 1, 32, 32, 24) * torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1, 1)
    with torch.no_grad():
        seen = small.see(images).whole
        said = small.text_encoder(["Goitre.", "Effusion of the left side, large."]) * 20
        score = torch.stack([small.match(small.fuse(seen, text.expand(2, -1))) for text in said])
    change = score[:, 1] - score[:, 0]
    assert not torch.allclose(change[0], change[1], rtol=1e-3)


def test_a_text_is_the_mean_of_its_sentences(small: VLModel) -> None:
    """So no report is too long, and the order of sentences does not matter."""
    encoder = small.text_encoder
    with torch.no_grad():
        both, turned = encoder(["Goitre. Effusion."]), encoder(["Effusion. Goitre."])
        apart = encoder(["Goitre.", "Effusion."]).mean(dim=0, keepdim=True)
        nothing = encoder([""])
    assert torch.allclose(both, turned, atol=1e-5)
    assert torch.allclose(both, apart, atol=1e-5)
    assert torch.isfinite(nothing).all()


def test_ids_of_another_tokenizer_are_taken(small: VLModel) -> None:
    ids = small.text_encoder.tokenise_rows(["goitre", "large goitre on the right"])
    mask = (ids != small.text_encoder.pad).long()
    with torch.no_grad():
        plain, mapped = small.text_encoder(ids), small.text_encoder({"input_ids": ids, "attention_mask": mask})
        alone = small.text_encoder(small.text_encoder.tokenise_rows(["goitre"]))
    assert torch.allclose(plain, mapped)
    assert torch.allclose(plain[:1], alone, atol=1e-5)  # padding changes nothing


def test_dynamic_loss_as_written() -> None:
    weigh = DynamicLoss([1.0, 2.0])
    losses = torch.tensor([0.5, 0.25], requires_grad=True)
    total = weigh(losses)
    assert total.shape == ()
    assert float(total.detach()) == pytest.approx(1.0)  # at the start the base weights themselves
    total.backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == [1, 2]


def test_without_pretrained_weights_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert VisionEncoder("resnet10").origin == "random"
    assert "random numbers" in caplog.text


def test_weights_of_a_flat_network_are_inflated(tmp_path: Path) -> None:
    encoder = VisionEncoder("resnet10")
    flat = {
        name: tensor.sum(dim=-1) if tensor.ndim == 5 else tensor
        for name, tensor in encoder.network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    save_file({name: tensor.contiguous() for name, tensor in flat.items()}, tmp_path / "resnet10.safetensors")
    again = VisionEncoder("resnet10", weights=tmp_path / "resnet10.safetensors")
    assert again.origin == "resnet10.safetensors"
    kernel, source = again.network.state_dict()["conv1.weight"], flat["conv1.weight"]
    assert torch.allclose(kernel.sum(dim=-1), source, atol=1e-5)
    assert torch.allclose(kernel[..., 0], kernel[..., -1])


def test_weights_from_the_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(VisionEncoder("resnet10").network.state_dict(), tmp_path / "resnet10.safetensors")
    monkeypatch.setenv("VLRETRIEVAL_WEIGHTS", str(tmp_path))
    assert VisionEncoder("resnet10").origin == "resnet10.safetensors"


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda path: VisionEncoder("resnet99"), ConfigError, "no vision encoder"),
        (lambda path: VisionEncoder("resnet10", weights=path / "none"), UnknownModelError, "no weights"),
        (lambda path: VisionEncoder("resnet10", weights=path), ModelIntegrityError, "holds 0 files"),
        (lambda path: TextEncoder("someone/bert-of-the-net"), UnknownModelError, "none is downloaded"),
        (lambda path: TextEncoder(path), ModelIntegrityError, "no tokenizer"),
        (lambda path: VisionEncoder("resnet10")(torch.zeros(1, 2, 8, 8, 8)), ConfigError, "are not"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, make: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make(tmp_path)  # type: ignore[operator]


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelIntegrityError, match="another network"):
        VisionEncoder("resnet10", weights=tmp_path / "w.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"words")
    with pytest.raises(ModelIntegrityError, match="damaged"):
        VisionEncoder("resnet10", weights=tmp_path / "bad.safetensors")


def test_a_text_encoder_in_hugging_faces_layout_comes_back(tmp_path: Path) -> None:
    """Saved with a vocabulary of its own, loaded by its folder, and the same for the same words."""
    train_vocabulary(["large goitre", "small goitre", "右侧腮腺增大"] * 5, tmp_path / "words.json", size=200)
    first = TextEncoder("scratch", vocabulary=tmp_path / "words.json", shape=(32, 1, 2, 64)).eval()
    first.save(tmp_path / "saved")
    again = TextEncoder(tmp_path / "saved", by_sentence=True).eval()
    assert (again.output_dim, again.origin) == (32, "saved")
    with torch.no_grad():
        assert torch.allclose(first(["large goitre"]), again(["large goitre"]), atol=1e-6)
    with pytest.raises(ConfigError, match="no text"):
        train_vocabulary([" "], tmp_path / "none.json")
    (tmp_path / "saved" / "model.safetensors").unlink()
    with pytest.raises(ModelIntegrityError, match=r"no \.safetensors"):
        TextEncoder(tmp_path / "saved")
