"""A strategy trains what it names and nothing else, and leaves a network as it would have been built."""

from __future__ import annotations

import sys
from importlib import util

import pytest
import torch
from tests.train.nets import SIDE, cell_network, convnet, hybrid, swin_v2, vit

from perikarya.config import TrainConfig
from perikarya.errors import ConfigError, TrainingError
from perikarya.models.build import CellNetwork, build_network
from perikarya.train.optim import make_optimizer, parameter_groups
from perikarya.train.parts import TrainedParts

NETWORKS = {"vit": vit, "swin_v2": swin_v2, "convnet": convnet, "hybrid": hybrid}
MASK = slice(3, None)


def cells(n: int = 4, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x_nchw = torch.randint(0, 256, (n, 4, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    x_nchw[:, 3] = torch.where(x_nchw[:, 3] > 127, 255, 0)
    return x_nchw


def parts_of(network: CellNetwork, strategy: str = "finetune", **settings: object) -> TrainedParts:
    return TrainedParts(network, train=TrainConfig.model_validate(settings), strategy=strategy)


def train_a_little(parts: TrainedParts, *, n_steps: int = 2, **settings: object) -> None:
    train = TrainConfig.model_validate({"lr": 1e-2, "weight_decay": 0.1, **settings})
    optimizer = make_optimizer(parts, train, rate=1.0)
    parts.set_training_mode()
    for step in range(n_steps):
        optimizer.zero_grad()
        logit_nk = parts.network(cells(seed=step))
        torch.nn.functional.cross_entropy(logit_nk, torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()


def changes(before: dict[str, torch.Tensor], network: CellNetwork) -> set[str]:
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


def copy_of(network: CellNetwork) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("arch", NETWORKS)
@pytest.mark.parametrize("settings", [{}, {"layer_decay": 0.5}, {"last_blocks": 1}, {"strategy": "lora"}], ids=str)
def test_before_the_first_step_and_after_undoing_the_network_is_as_built(
    arch: str, settings: dict[str, object]
) -> None:
    if arch == "convnet" and "strategy" in settings:
        pytest.skip("no attention")
    network = NETWORKS[arch]().eval()
    before, expected = copy_of(network), network(cells())
    parts = parts_of(network, **settings)
    torch.testing.assert_close(network.eval()(cells()), expected)
    parts.restore()
    assert changes(before, network) == set()
    assert set(network.state_dict()) == set(before)
    assert all(p.requires_grad for p in network.parameters())
    torch.testing.assert_close(network(cells()), expected)


def test_the_last_blocks_train_with_the_classifier_and_the_filters_of_the_mask_and_nothing_else() -> None:
    network = vit()
    before = copy_of(network)
    parts = parts_of(network, last_blocks=1)
    train_a_little(parts)
    parts.restore()
    changed = changes(before, network)
    block = {name for name in before if ".blocks.2." in name or name.startswith(("backbone.norm", "backbone.head"))}
    assert changed == block | {"backbone.patch_embed.proj.weight"}
    stem = network.backbone.patch_embed.proj.weight
    assert torch.equal(stem[:, :3], before["backbone.patch_embed.proj.weight"][:, :3])
    assert stem[:, MASK].abs().min() > 0


def test_no_last_block_means_the_classifier() -> None:
    network = vit()
    before = copy_of(network)
    parts = parts_of(network, last_blocks=0)
    train_a_little(parts)
    parts.restore()
    assert changes(before, network) == {
        "backbone.head.weight",
        "backbone.head.bias",
        "backbone.patch_embed.proj.weight",
    }


def test_frozen_normalisation_keeps_its_statistics() -> None:
    network = convnet()
    before = copy_of(network)
    parts = parts_of(network, last_blocks=1)
    train_a_little(parts)
    parts.restore()
    changed = {name for name in changes(before, network) if "running" in name or "num_batches" in name}
    assert changed
    assert all(name.startswith("backbone.layer4.") for name in changed)


def test_the_mask_of_a_weight_standardised_stem_learns_while_the_stem_is_frozen() -> None:
    network = hybrid()
    before = copy_of(network)
    parts = parts_of(network, last_blocks=1)
    train_a_little(parts)
    parts.restore()
    stem = {name for name in changes(before, network) if "patch_embed" in name}
    assert stem == {"backbone.patch_embed.backbone.stem.conv.mask.weight"}


def test_the_classifier_alone_trains_while_the_rest_is_as_at_prediction() -> None:
    network = convnet()
    before = copy_of(network)
    parts = parts_of(network)
    parts.train_classifier_only(True)
    train_a_little(parts)
    assert changes(before, network) == {"backbone.fc.weight", "backbone.fc.bias"}
    parts.train_classifier_only(False)
    train_a_little(parts)
    learnt = {f"backbone.{name}" for name, _ in network.backbone.named_parameters()}
    assert learnt <= changes(before, network)


@pytest.mark.parametrize("arch", ["vit", "hybrid", "swin_v2"])
def test_lora_changes_attention_classifier_and_mask_only(arch: str) -> None:
    network = NETWORKS[arch]()
    before = copy_of(network)
    parts = parts_of(network, strategy="lora", lora_rank=2)
    train_a_little(parts)
    parts.refuse_idle_lora()
    trained = network.eval()(cells())
    parts.restore()
    torch.testing.assert_close(network.eval()(cells()), trained, atol=1e-4, rtol=1e-4)
    attention = {name for name in before if name.endswith(("attn.qkv.weight", "attn.proj.weight"))}
    mask = "patch_embed.backbone.stem.conv.mask.weight" if arch == "hybrid" else "patch_embed.proj.weight"
    classifier = {name for name in before if name.startswith("backbone.head")}
    assert changes(before, network) == attention | classifier | {f"backbone.{mask}"}
    assert not any(getattr(module, "qkv_bias_separate", False) for module in network.modules())


def test_additions_have_the_rank_and_weight_asked_for() -> None:
    network = vit()
    before = network.backbone.blocks[0].attn.qkv.weight.clone()
    parts = parts_of(network, strategy="lora", lora_rank=2, lora_alpha=6)
    layer = network.backbone.blocks[0].attn.qkv
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert (down.shape, up.shape) == ((2, 24), (72, 2))
    torch.nn.init.ones_(up)
    expected = before + 6 / 2 * up.detach() @ down.detach()
    parts.restore()
    torch.testing.assert_close(network.backbone.blocks[0].attn.qkv.weight, expected)


def test_an_addition_that_the_network_passes_by_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perikarya.train.lora._multiply_through_layers", lambda backbone: [])
    parts = parts_of(swin_v2(), strategy="lora")
    train_a_little(parts, n_steps=1)
    with pytest.raises(TrainingError, match="take no part"):
        parts.refuse_idle_lora()


def test_a_frozen_network_answers_as_at_prediction_while_its_classifier_trains() -> None:
    parts = parts_of(vit(proj_drop_rate=0.5, drop_rate=0.5))
    parts.train_classifier_only(True)
    parts.set_training_mode()
    features = [parts.network.backbone.forward_features(parts.network.normalised(cells())) for _ in range(2)]
    assert torch.equal(features[0], features[1])
    assert parts.network.backbone.head.training
    parts.train_classifier_only(False)
    parts.set_training_mode()
    assert all(module.training for module in parts.network.modules())


def test_lora_is_refused_where_there_is_no_attention() -> None:
    with pytest.raises(ConfigError, match="ResNet has none"):
        parts_of(convnet(), strategy="lora")


def test_a_missing_peft_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == "peft" else found(name, *rest))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'perikarya\[lora\]'"):
        parts_of(vit(), strategy="lora")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"last_blocks": 4}, "VisionTransformer has 3 blocks"),
        ({"last_blocks": 1, "strategy": "lora"}, "has nothing to choose from"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parts_of(vit(), **settings)


def test_each_layer_learns_slower_than_the_one_above_but_what_is_new_at_the_full_rate() -> None:
    parts = parts_of(vit(), layer_decay=0.5)
    rates = {name: parts.rate_of(name) for name, _ in parts.network.named_parameters()}
    assert rates["backbone.head.weight"] == 1
    assert [rates[f"backbone.blocks.{i}.attn.qkv.weight"] for i in (2, 1, 0)] == [0.5, 0.25, 0.125]
    assert rates["backbone.pos_embed"] == 0.0625
    assert rates["backbone.patch_embed.proj.parametrizations.weight.original0"] == 0.0625
    assert rates["backbone.patch_embed.proj.parametrizations.weight.original1"] == 1
    groups = parameter_groups(parts, lr=0.1, weight_decay=0.01)
    own_path = "backbone.patch_embed.backbone.stem.conv.mask.weight"
    assert parts_of(hybrid(), layer_decay=0.5).rate_of(own_path) == 1
    assert {round(group["lr"], 6) for group in groups} == {0.1, 0.05, 0.025, 0.0125, 0.00625}


def test_biases_normalisation_and_position_embeddings_are_not_decayed() -> None:
    parts = parts_of(vit())
    decay = {id(p): g["weight_decay"] for g in parameter_groups(parts, lr=1, weight_decay=0.1) for p in g["params"]}
    by_name = {name: decay[id(p)] for name, p in parts.network.named_parameters()}
    assert by_name["backbone.blocks.0.mlp.fc1.weight"] == 0.1
    for spared in ("pos_embed", "cls_token", "norm.weight", "blocks.0.mlp.fc1.bias"):
        assert by_name[f"backbone.{spared}"] == 0


def test_only_what_trains_is_kept_in_a_state() -> None:
    network = vit()
    parts = parts_of(network, strategy="lora", lora_rank=2)
    parameters = {name for name in parts.changing() if not name.startswith("pixel_")}
    assert all("lora" in n or ".head." in n or "original1" in n for n in parameters)
    assert len(parameters) == 3 * 2 * 2 + 2 + 1
    tensors = {name: tensor.clone() for name, tensor in parts.changing().items()}
    train_a_little(parts)
    parts.load(tensors)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in parts.changing().items())


def test_activations_computed_twice_give_the_same_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        network = vit()
        parts = parts_of(network, checkpointing=checkpointing)
        parts.set_training_mode()
        network(cells()).logsumexp(dim=1).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
        assert network.backbone.grad_checkpointing is checkpointing
        parts.restore()
        assert network.backbone.grad_checkpointing is False
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


def test_activations_that_would_copy_first_write_elsewhere_and_change_no_gradient() -> None:
    def gradients(network: CellNetwork) -> list[torch.Tensor]:
        network.train()(cells()).logsumexp(dim=1).sum().backward()
        return [p.grad for p in network.parameters()]

    def in_place(network: CellNetwork) -> set[bool]:
        return {m.inplace for m in network.modules() if isinstance(m, (torch.nn.ReLU6, torch.nn.SiLU))}

    plain, prepared = (cell_network("tf_efficientnet_lite0") for _ in range(2))
    parts = parts_of(prepared)
    assert (in_place(plain), in_place(prepared)) == ({True}, {False})
    assert all(torch.equal(a, b) for a, b in zip(gradients(plain), gradients(prepared), strict=True))
    parts.restore()
    assert in_place(prepared) == {True}


def test_a_network_that_cannot_compute_activations_twice_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(enable: bool = True) -> None:
        assert not enable, "gradient checkpointing not supported"

    network = convnet()
    monkeypatch.setattr(network.backbone, "set_grad_checkpointing", refuse)
    with pytest.raises(ConfigError, match=r"train\.checkpointing: false"):
        parts_of(network, checkpointing=True)


def test_the_networks_of_ours_know_their_layers() -> None:
    parts = parts_of(build_network("custom_cnn", n_classes=3), layer_decay=0.5, last_blocks=1)
    assert parts.rate_of("backbone.head.weight") == 1
    assert parts.rate_of("backbone.blocks.3.conv1.weight") == 0.5
    trained = {name for name, p in parts.network.named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in trained} == {"blocks", "head"}
