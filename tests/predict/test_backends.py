from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.predict.tiny_models import INPUT_PX, answer, describe, tiny_model

from perikarya.errors import ConfigError, DataError, UnknownNameError
from perikarya.parallel import n_cores
from perikarya.predict import backends
from perikarya.predict.backends import backend_of, open_backend, usable_threads
from perikarya.predict.folder import ModelFolder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_model(tmp_path_factory.mktemp("model"))


def crops(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, INPUT_PX, INPUT_PX, 4), dtype=np.uint8)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_graph_gives_its_logits_and_features_for_any_number_of_cells(model: ModelFolder, name: str) -> None:
    backend = open_backend(model, 0, backend=name, features=True)
    for n in (1, 7, 3):
        logits, features = backend.run(crops(n))
        expected_logits, expected_features = answer(crops(n), 0)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected_logits, atol=1e-4)
        np.testing.assert_allclose(features, expected_features, atol=1e-4)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_cells_may_be_views_that_do_not_lie_in_order_in_memory(model: ModelFolder, name: str) -> None:
    mirrored = crops(3)[:, :, ::-1]
    logits, _ = open_backend(model, 0, backend=name).run(mirrored)
    np.testing.assert_allclose(logits, answer(mirrored, 0)[0], atol=1e-4)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_features_come_only_where_they_are_asked_for(model: ModelFolder, name: str) -> None:
    assert open_backend(model, 0, backend=name).run(crops(2))[1] is None


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_threads_that_ask_at_once_each_get_the_answer_to_their_own_cells(model: ModelFolder, name: str) -> None:
    backend = open_backend(model, 0, backend=name, features=True)
    assert backend.parallel
    questions = [crops(1 + i % 5, seed=i) for i in range(60)]
    with ThreadPoolExecutor(4) as pool:
        for question, (logits, features) in zip(questions, pool.map(backend.run, questions), strict=True):
            np.testing.assert_allclose(logits, answer(question, 0)[0], atol=1e-4)
            np.testing.assert_allclose(features, answer(question, 0)[1], atol=1e-4)


def test_tensors_are_computed_by_torch_as_the_network_itself_does(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from perikarya.models.build import build_network
    from perikarya.predict.graphs import write_tensors

    torch.manual_seed(3)
    network = build_network("custom_cnn", n_classes=3, input_px=INPUT_PX).eval()
    write_tensors(network, tmp_path / "fold0.safetensors")
    model = describe(tmp_path, ["fold0.safetensors"], format="safetensors", n_features=160)
    assert backend_of(model) == "torch"
    logits, features = open_backend(model, 0, features=True).run(crops(4))
    with torch.inference_mode():
        expected = network(torch.from_numpy(crops(4)).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert features is not None
    assert features.shape == (4, 160)


def test_onnx_runtime_is_chosen_where_it_is_installed_else_openvino(
    model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backend_of(model) == "onnxruntime"
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "onnxruntime" else object())
    assert backend_of(model) == "openvino"


@pytest.mark.parametrize(
    ("wanted", "extra"), [("auto", "predict"), ("onnxruntime", "predict"), ("openvino", "openvino")]
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    model: ModelFolder, monkeypatch: pytest.MonkeyPatch, wanted: str, extra: str
) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf'pip install "perikarya\[{extra}\]"'):
        open_backend(model, 0, backend=wanted)


def test_a_backend_that_cannot_compute_the_format_is_refused(model: ModelFolder) -> None:
    with pytest.raises(ConfigError, match="torch cannot compute tiny, which is stored as onnx"):
        open_backend(model, 0, backend="torch")


def test_an_unknown_backend_is_refused_with_the_nearest_name(model: ModelFolder) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'openvino'"):
        open_backend(model, 0, backend="openvin")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_file_that_is_no_graph_is_refused_with_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "fold0.onnx").write_bytes(b"\x08\x07garbage" * 10)
    with pytest.raises(DataError, match=r"fold0\.onnx cannot be computed by this version"):
        open_backend(describe(tmp_path, ["fold0.onnx"]), 0, backend=name)


def test_there_are_never_more_threads_than_cores() -> None:
    assert usable_threads(10_000) == n_cores()
    assert usable_threads(1) == 1
    assert 1 <= usable_threads(None) <= n_cores()
