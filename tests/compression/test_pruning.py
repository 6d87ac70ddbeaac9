"""Masks against brute force and torch's own pruning; exact zeros under every optimiser; bit-exact rewinding."""

import doctest
import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from etude.compression import (
    Mask,
    early_stop,
    iterative_magnitude_pruning,
    keep_sign,
    magnitude_mask,
    masked,
    perturb,
    prunable,
    pruning,
    random_mask,
    reinitialise,
    reinitialise_from_ticket,
    shuffle_within_layer,
    time_to_level,
)
from etude.nn import lenet_300_100


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def small(dtype=torch.float32):
    """A convolution, batch normalisation and two linear layers, with weights drawn from a fixed generator."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 10), nn.Tanh(), nn.Linear(10, 4)
    ).to(dtype)
    draws = source(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=draws)
    return model


def loss_of(model, draws):
    dtype = next(model.parameters()).dtype
    x, y = torch.randn(12, 1, 6, 6, generator=draws).to(dtype), torch.randint(4, (12,), generator=draws)
    return nn.functional.cross_entropy(model(x), y)


def steps(model, optimizer, n, draws):
    for _ in range(n):
        optimizer.zero_grad()
        loss_of(model, draws).backward()
        optimizer.step()


def brute_force(magnitudes, kept, rate):
    """Remove round(rate * survivors) of the kept, smallest first, then first in order."""
    alive = [i for i in range(len(kept)) if kept[i]]
    gone = sorted(alive, key=lambda i: (magnitudes[i], i))[: round(rate * len(alive))]
    return [kept[i] and i not in gone for i in range(len(kept))]


WEIGHTS = st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]), min_size=2, max_size=40)


class TestMask:
    def test_counts_and_density(self):
        mask = Mask({"b": torch.tensor([[1, 0], [0, 0]]), "a": torch.tensor([True, True, False, True])})
        assert list(mask) == ["b", "a"]
        assert mask.counts() == {"b": 1, "a": 3}
        assert mask.density() == 4 / 8
        assert mask.per_layer() == {"b": 0.25, "a": 0.75}

    @given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
    def test_algebra(self, pairs):
        a = Mask({"w": torch.tensor([p[0] for p in pairs])})
        b = Mask({"w": torch.tensor([p[1] for p in pairs])})
        assert (a & b)["w"].tolist() == [x and y for x, y in pairs]
        assert (a | b)["w"].tolist() == [x or y for x, y in pairs]
        assert (a & b) == (b & a)
        assert a | (a & b) == a
        assert (a == b) == all(x == y for x, y in pairs)

    def test_equality_looks_at_names_shapes_and_order(self):
        one, two = torch.ones(2, 3), torch.ones(3, 2)
        assert Mask({"a": one, "b": two}) == Mask({"a": one.bool(), "b": two.bool()})
        assert Mask({"a": one}) != Mask({"b": one})
        assert Mask({"a": one}) != Mask({"a": two})
        assert Mask({"a": one, "b": two}) != Mask({"b": two, "a": one})
        assert Mask({"a": one}) != "a"

    def test_save_and_load_keep_order(self, tmp_path):
        mask = random_mask(Mask({"z": torch.arange(12).view(3, 4) % 2, "a": torch.ones(5)}), source())
        mask.save(tmp_path / "mask.safetensors")
        assert Mask.load(tmp_path / "mask.safetensors") == mask

    def test_load_refuses_other_files(self, tmp_path):
        from safetensors.torch import save_file

        save_file({"w": torch.ones(2)}, tmp_path / "other.safetensors")
        with pytest.raises(ValueError, match="no mask"):
            Mask.load(tmp_path / "other.safetensors")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_apply_and_select_give_exact_zeros_and_leave_the_rest(self, dtype):
        model = small(dtype)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        mask = magnitude_mask(model, rate=0.5)
        selected = mask.select(model.state_dict())
        assert mask.apply_(model) is model
        for name, value in model.state_dict().items():
            expected = torch.where(mask[name], before[name], 0) if name in mask else before[name]
            assert torch.equal(value, expected)
            assert torch.equal(selected[name], expected)

    def test_select_of_a_state_that_is_not_finite_is_zero_where_pruned(self):
        state = {"w": torch.tensor([math.nan, math.inf, 1.0])}
        assert Mask({"w": torch.tensor([0, 0, 1])}).select(state)["w"].tolist() == [0, 0, 1]

    @pytest.mark.parametrize(
        ("layers", "error", "text"),
        [
            ({}, ValueError, "at least one"),
            ({"w": torch.tensor([0.0, 0.5])}, ValueError, "'w'.*other than 0 and 1"),
            ({"w": torch.ones(0)}, ValueError, "'w'.*no entries"),
            ({"w": [1, 0]}, TypeError, "'w'.*list"),
        ],
    )
    def test_refuses_what_is_no_mask(self, layers, error, text):
        with pytest.raises(error, match=text):
            Mask(layers)

    def test_refuses_unknown_names_and_wrong_shapes(self):
        model = small()
        with pytest.raises(ValueError, match=r"'0\.wieght'.*Did you mean '0\.weight'"):
            Mask({"0.wieght": torch.ones(3, 1, 3, 3)}).apply_(model)
        with pytest.raises(ValueError, match=r"'4\.weight' has shape \(3, 3\).*\(10, 48\)"):
            Mask({"4.weight": torch.ones(3, 3)}).apply_(model)
        with pytest.raises(ValueError, match="different layers"):
            Mask({"a": torch.ones(1)}) & Mask({"b": torch.ones(1)})
        with pytest.raises(ValueError, match="shape"):
            Mask({"a": torch.ones(1)}) | Mask({"a": torch.ones(2)})


class TestPrunable:
    def test_linear_and_convolution_weights_in_order(self):
        assert prunable(small()) == ("0.weight", "4.weight", "6.weight")
        assert prunable(small(), exclude=["6.*"]) == ("0.weight", "4.weight")
        assert prunable(small(), types=(nn.Conv2d,)) == ("0.weight",)
        assert prunable(nn.Linear(2, 2)) == ("weight",)

    def test_refuses_shared_weights(self):
        model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
        model[1].weight = model[0].weight
        with pytest.raises(ValueError, match=r"shared by \['0.weight', '1.weight'\]"):
            prunable(model)
        twice = nn.Linear(3, 3)
        with pytest.raises(ValueError, match="shared"):
            prunable(nn.ModuleDict({"a": nn.Sequential(twice), "b": nn.Linear(1, 1), "c": twice}))

    def test_refuses_computed_and_unmade_weights(self):
        with pytest.raises(ValueError, match="parametrisation"):
            prunable(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
        with pytest.raises(ValueError, match="not a parameter of its own"):
            prunable(torch_prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5))
        with pytest.raises(ValueError, match="no shape yet"):
            prunable(nn.LazyLinear(3))

    def test_refuses_nothing_to_prune(self):
        with pytest.raises(ValueError, match="ReLU has no weights"):
            prunable(nn.ReLU())
        with pytest.raises(ValueError, match="'fc' matches no weight"):
            prunable(small(), exclude=["fc"])


class TestMagnitudeMask:
    @given(WEIGHTS, st.floats(0.01, 0.99), st.data())
    def test_a_layer_against_brute_force_with_ties(self, weights, rate, data):
        kept = data.draw(st.lists(st.booleans(), min_size=len(weights), max_size=len(weights)))
        expected = brute_force([abs(w) for w in weights], kept, rate)
        mask = magnitude_mask({"w": torch.tensor(weights)}, Mask({"w": torch.tensor(kept)}), rate=rate, min_per_layer=0)
        assert mask["w"].tolist() == expected

    @given(WEIGHTS, WEIGHTS, st.floats(0.01, 0.99))
    def test_one_threshold_against_brute_force_with_ties(self, first, second, rate):
        weights = {"a": torch.tensor(first), "b": torch.tensor(second)}
        full = Mask({name: torch.ones_like(value) for name, value in weights.items()})
        mask = magnitude_mask(weights, full, rate=rate, scope="global", min_per_layer=0)
        together = brute_force([abs(w) for w in first + second], [True] * len(first + second), rate)
        assert mask["a"].tolist() + mask["b"].tolist() == together

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_agrees_with_torch(self, dtype):
        model, peer = small(dtype), small(dtype)
        mask = magnitude_mask(model, rate=0.3)
        for name in mask:
            layer = peer.get_submodule(name.removesuffix(".weight"))
            torch_prune.l1_unstructured(layer, "weight", amount=round(0.3 * layer.weight.numel()))
            if dtype != torch.bfloat16:  # there are ties in bfloat16, which torch breaks otherwise
                assert torch.equal(mask[name], layer.weight_mask.bool())
            assert mask[name].sum() == layer.weight_mask.sum()

    def test_agrees_with_torch_globally(self):
        model, peer = small(), small()
        mask = magnitude_mask(model, rate=0.7, scope="global")
        torch_prune.global_unstructured(
            [(peer[i], "weight") for i in (0, 4, 6)], torch_prune.L1Unstructured, amount=round(0.7 * 547)
        )
        assert all(torch.equal(mask[f"{i}.weight"], peer[i].weight_mask.bool()) for i in (0, 4, 6))

    def test_layer_and_global_differ_when_layers_differ_in_scale(self):
        weights = {"big": 10 + torch.rand(50, generator=source()), "small": torch.rand(50, generator=source(1))}
        full = Mask({name: torch.ones(50) for name in weights})
        assert magnitude_mask(weights, full, rate=0.4).counts() == {"big": 30, "small": 30}
        assert magnitude_mask(weights, full, rate=0.4, scope="global").counts() == {"big": 50, "small": 10}

    def test_keeps_a_subset_and_counts_exactly(self):
        model, mask = small(), None
        survivors = {"0.weight": 27, "4.weight": 480, "6.weight": 40}
        for _ in range(4):
            smaller = magnitude_mask(model, mask, rate={"*": 0.2, "output": 0.1})
            assert mask is None or (smaller & mask) == smaller
            survivors = {n: c - round((0.1 if n == "6.weight" else 0.2) * c) for n, c in survivors.items()}
            assert smaller.counts() == survivors
            mask = smaller

    @pytest.mark.parametrize(
        ("rounds", "percent"), [(3, 51.3), (7, 21.1), (9, 13.5), (15, 3.6)]
    )  # section 2 of the paper
    def test_schedule_of_the_paper(self, rounds, percent):
        model = lenet_300_100(generator=source())
        mask = None
        for _ in range(rounds):
            mask = magnitude_mask(model, mask, rate={"output": 0.1, "*": 0.2})
        assert round(100 * mask.density(), 1) == percent
        sizes = {"fc1.weight": 235_200, "fc2.weight": 30_000, "output.weight": 1_000}
        for name, count in mask.counts().items():
            assert abs(count - sizes[name] * (0.9 if name == "output.weight" else 0.8) ** rounds) <= 1

    def test_follows_a_permutation_of_hidden_units(self):
        model = lenet_300_100(20, 5, generator=source())
        order = torch.randperm(300, generator=source(3))
        state = model.state_dict()
        permuted = state | {"fc1.weight": state["fc1.weight"][order], "fc2.weight": state["fc2.weight"][:, order]}
        for scope in ("layer", "global"):
            mask = magnitude_mask(model, rate=0.8, scope=scope)
            moved = magnitude_mask(permuted, Mask.full(model), rate=0.8, scope=scope)
            assert torch.equal(moved["fc1.weight"], mask["fc1.weight"][order])
            assert torch.equal(moved["fc2.weight"], mask["fc2.weight"][:, order])
            assert torch.equal(moved["output.weight"], mask["output.weight"])

    def test_rates_by_name_output_and_pattern(self):
        mask = magnitude_mask(small(), rate={"*": 0.5, "4.weight": 0.1, "output": 0.0})
        assert mask.counts() == {"0.weight": 27 - 14, "4.weight": 432, "6.weight": 40}  # 13.5 rounds to even

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"rate": 0.0}, r"rate=0\.0"),
            ({"rate": 1.0}, r"rate=1\.0"),
            ({"rate": -0.1}, r"rate=-0\.1"),
            ({"rate": math.nan}, "rate=nan"),
            ({"rate": "0.2"}, "rate='0.2'"),
            ({"rate": True}, "rate=True"),
            ({"rate": {"*": 1.0}}, r"rate\['\*'\]=1\.0"),
            ({"rate": {"*": 0.0}}, "nothing would be pruned"),
            ({"rate": {"fc*": 0.2}}, r"'fc\*'.*matches no layer"),
            ({"rate": {"0.weight": 0.2}}, r"no rate is given for layer '4\.weight'"),
            ({"rate": {"*": 0.2}, "scope": "global"}, "one rate for all"),
            ({"rate": 0.2, "scope": "all"}, "scope='all'"),
            ({"rate": 0.99}, r"'0\.weight' would keep 0"),
            ({"rate": 0.2, "min_per_layer": 30}, r"'0\.weight' would keep 22.*min_per_layer=30"),
        ],
    )
    def test_refuses_bad_rates(self, options, text):
        with pytest.raises(ValueError, match=text):
            magnitude_mask(small(), **options)

    def test_refuses_weights_that_are_not_finite_unless_pruned_already(self):
        weights = {"w": torch.tensor([math.nan, 1.0, 2.0])}
        with pytest.raises(ValueError, match=r"'w'.*not finite"):
            magnitude_mask(weights, Mask({"w": torch.ones(3)}), rate=0.5)
        assert magnitude_mask(weights, Mask({"w": torch.tensor([0, 1, 1])}), rate=0.5)["w"].tolist() == [
            False,
            False,
            True,
        ]

    def test_a_state_needs_a_mask(self):
        with pytest.raises(ValueError, match="mask"):
            magnitude_mask(small().state_dict(), rate=0.2)


OPTIMIZERS = {
    "sgd with momentum and decay": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "sgd with Nesterov momentum": partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True),
    "adam with decay": partial(torch.optim.Adam, lr=1e-2, weight_decay=1e-2),
    "adam, fused": partial(torch.optim.Adam, lr=1e-2, fused=True),
    "adamw": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1),
    "rmsprop": partial(torch.optim.RMSprop, lr=1e-3, momentum=0.9, centered=True, weight_decay=1e-2),
}


class TestMasked:
    @pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
    def test_pruned_weights_stay_exactly_zero(self, make):
        model = small()
        mask = magnitude_mask(model, rate=0.6)
        with masked(model, mask):
            steps(model, make(model.parameters()), 200, source(2))
            assert all(model.get_submodule(n[0]).weight[~kept].eq(0).all() for n, kept in mask.items())
        for name, kept in mask.items():
            weight = model.get_parameter(name)
            assert isinstance(weight, nn.Parameter)
            assert weight[~kept].eq(0).all()
            assert weight[kept].ne(0).any()

    def test_also_when_the_optimizer_had_state_and_adds_noise(self):
        model = small()
        mask = magnitude_mask(model, rate=0.6)
        with masked(model, mask):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            for parameter in model.parameters():
                optimizer.state[parameter]["momentum_buffer"] = torch.ones_like(parameter)
            for _ in range(5):
                steps(model, optimizer, 1, source(2))
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.add_(torch.randn(parameter.shape, generator=source(4)))
            assert all(model.get_submodule(n[0]).weight[~kept].eq(0).all() for n, kept in mask.items())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_gradients_vanish_where_pruned_and_are_the_plain_ones_elsewhere(self, dtype):
        model, plain = small(dtype), small(dtype)
        mask = magnitude_mask(model, rate=0.6)
        mask.apply_(plain)
        loss_of(plain, source(5)).backward()
        with masked(model, mask):
            loss_of(model, source(5)).backward()
            for name, kept in mask.items():
                gradient = model.get_submodule(name[0]).parametrizations.weight.original.grad
                assert gradient[~kept].eq(0).all()
                assert torch.equal(gradient[kept], plain.get_parameter(name).grad[kept])

    def test_removing_restores_names_and_may_be_done_twice(self):
        model = small()
        names = list(model.state_dict())
        handle = masked(model, magnitude_mask(model, rate=0.5))
        assert "0.weight" not in dict(model.named_parameters())
        handle.remove()
        handle.remove()
        assert set(model.state_dict()) == set(names)

    def test_removed_even_when_the_block_raises(self):
        model = small()
        with pytest.raises(RuntimeError, match="stop"), masked(model, magnitude_mask(model, rate=0.5)):
            raise RuntimeError("stop")
        assert "0.weight" in dict(model.named_parameters())

    def test_masks_can_be_made_from_a_masked_module(self):
        model = small()
        first = magnitude_mask(model, rate=0.5)
        with masked(model, first):
            assert magnitude_mask(model, first, rate=0.5) == magnitude_mask(
                first.select(small().state_dict()), first, rate=0.5
            )

    def test_refuses_twice_and_leaves_the_module_alone(self):
        model = small()
        mask = magnitude_mask(model, rate=0.5)
        with masked(model, mask), pytest.raises(ValueError, match="already"):
            masked(model, mask)
        with pytest.raises(ValueError, match="no parameter 'x'"):
            masked(model, Mask(mask.layers | {"x": torch.ones(1)}))
        assert "0.weight" in dict(model.named_parameters())


class TestIterativeMagnitudePruning:
    def train(self, seen=None):
        def train(model, mask, start=0, stop=None):
            if seen is not None:
                seen.append((start, stop, {name: value.clone() for name, value in model.state_dict().items()}))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
            stop = 12 if stop is None else stop
            steps(model, optimizer, stop - start, source(100 + start))
            return mask.density()

        return train

    def test_the_docstring_example(self):
        results = doctest.testmod(pruning)
        assert (results.failed, results.attempted > 3) == (0, True)

    def test_rewinds_bit_exactly(self):
        model, seen = small(), []
        levels = list(iterative_magnitude_pruning(model, self.train(), rounds=3, rate=0.3))
        assert [level.index for level in levels] == [0, 1, 2, 3]
        for level in levels:
            for name, value in small().state_dict().items():
                assert torch.equal(level.initial[name], value)
                assert torch.equal(
                    level.ticket[name], torch.where(level.mask[name], value, 0) if name in level.mask else value
                )
            assert all(level.trained[name][~kept].eq(0).all() for name, kept in level.mask.items())
            assert level.result == level.mask.density()
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), small().parameters())), "the model was changed"

        def train(model, mask):
            seen.append(mask.select(levels[0].initial))
            held = {
                name.replace("parametrizations.", "").replace(".original", ""): value
                for name, value in model.state_dict().items()
            }
            assert all(torch.equal(held[name], value) for name, value in seen[-1].items())

        list(iterative_magnitude_pruning(model, train, rounds=2, rate=0.3))
        assert len(seen) == 3

    def test_masks_come_from_trained_weights(self):
        levels = list(iterative_magnitude_pruning(small(), self.train(), rounds=3, rate=0.3))
        for before, after in itertools.pairwise(levels):
            assert after.mask == magnitude_mask(before.trained, before.mask, rate=0.3)

    def test_rewinding_to_an_iteration_restores_weights_and_buffers(self):
        seen = []
        levels = list(iterative_magnitude_pruning(small(), self.train(seen), rounds=2, rate=0.3, rewind_to=5))
        assert [(start, stop) for start, stop, _ in seen] == [(0, 5), (5, None), (5, None), (5, None)]
        by_hand = small()
        steps(by_hand, torch.optim.SGD(by_hand.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3), 5, source(100))
        for level, (_, _, state) in zip(levels, seen[1:]):
            for name, value in by_hand.state_dict().items():
                assert torch.equal(level.initial[name], value), name
            for buffer in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
                assert torch.equal(state[buffer], by_hand.state_dict()[buffer])
        assert levels[0].initial["1.num_batches_tracked"] == 5

    def test_continuing_starts_from_trained_weights_and_rewinds_the_ticket(self):
        seen = []
        levels = list(iterative_magnitude_pruning(small(), self.train(seen), rounds=2, rate=0.3, strategy="continue"))
        for before, after, (_, _, state) in zip(levels, levels[1:], seen[1:]):
            started = state["4.parametrizations.weight.original"]
            assert torch.equal(started, torch.where(after.mask["4.weight"], before.trained["4.weight"], 0))
            assert torch.equal(after.initial["4.weight"], small().state_dict()["4.weight"])

    def test_one_round_is_one_shot(self):
        _, once = iterative_magnitude_pruning(small(), self.train(), rounds=1, rate=0.9)
        assert once.mask.counts() == {"0.weight": 27 - 24, "4.weight": 48, "6.weight": 4}

    def test_a_rate_for_each_round(self):
        levels = list(
            iterative_magnitude_pruning(small(), self.train(), rounds=2, rate=[0.5, {"output": 0.5, "*": 0.1}])
        )
        assert levels[2].mask.counts() == {"0.weight": 12, "4.weight": 216, "6.weight": 10}

    def test_global_scope_and_a_given_mask(self):
        start = Mask.full(small(), prunable(small(), exclude=["6.weight"]))
        levels = list(
            iterative_magnitude_pruning(small(), self.train(), rounds=2, rate=0.5, scope="global", mask=start)
        )
        assert [sum(level.mask.counts().values()) for level in levels] == [507, 507 - 254, 253 - 126]
        assert "6.weight" not in levels[-1].mask

    def test_a_seed_pairs_levels_and_leaves_the_global_generator_alone(self):
        drawn = []

        def train(model, mask):
            drawn.append(torch.rand(3))

        model = small()
        torch.manual_seed(7)
        expected = torch.rand(1)
        torch.manual_seed(7)
        list(iterative_magnitude_pruning(model, train, rounds=2, rate=0.3, seed=3))
        assert torch.equal(torch.rand(1), expected)
        assert torch.equal(drawn[0], drawn[1])
        assert torch.equal(drawn[1], drawn[2])

    def test_nothing_is_drawn_from_the_global_generators(self):
        model = small()
        state, mask = model.state_dict(), magnitude_mask(model, rate=0.5)
        numpy_state, before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
        list(iterative_magnitude_pruning(model, self.train(), rounds=2, rate=0.3))
        for control in CONTROLS.values():
            control(state, mask, source())
        random_mask(mask, source())
        assert torch.equal(torch.get_rng_state(), before)
        assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002

    def test_levels_are_trained_when_asked_for(self):
        seen = []
        levels = iterative_magnitude_pruning(small(), self.train(seen), rounds=5, rate=0.3)
        assert seen == []
        next(levels), next(levels)
        assert len(seen) == 2

    def test_without_holding_a_training_that_moves_pruned_weights_is_caught(self):
        with pytest.raises(ValueError, match=r"train: it moved pruned weights of '0\.weight'"):
            list(iterative_magnitude_pruning(small(), self.train(), rounds=1, rate=0.3, hold=False))

    def test_a_diverged_training_is_named(self):
        def train(model, mask):
            with torch.no_grad():
                model[4].bias.fill_(math.nan)
                model[4].parametrizations.weight.original.fill_(math.inf)

        with pytest.raises(ValueError, match=r"'4\.weight'.*not finite"):
            list(iterative_magnitude_pruning(small(), train, rounds=1, rate=0.3))

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"rounds": 0}, "rounds=0"),
            ({"rounds": 1.5}, "rounds=1.5"),
            ({"rounds": 2, "rate": 1.2}, r"rate=1\.2"),
            ({"rounds": 2, "rate": [0.2]}, "1 rates were given for rounds=2"),
            ({"rounds": 2, "rewind_to": -1}, "rewind_to=-1"),
            ({"rounds": 2, "strategy": "rewind"}, "strategy='rewind'"),
            ({"rounds": 2, "scope": "model"}, "scope='model'"),
            ({"rounds": 2, "mask": Mask({"w": torch.ones(1)})}, "no parameter 'w'"),
        ],
    )
    def test_refuses_before_any_training(self, options, text):
        seen = []
        with pytest.raises(ValueError, match=text):
            iterative_magnitude_pruning(small(), self.train(seen), **options)
        assert seen == []


CONTROLS = {
    "reinitialise": reinitialise,
    "from ticket": reinitialise_from_ticket,
    "keep sign": keep_sign,
    "shuffle": shuffle_within_layer,
    "perturb": lambda state, mask, generator: perturb(state, mask, 1.0, generator),
}


class TestControls:
    @pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS.keys())
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_keeps_mask_and_everything_else(self, control, dtype):
        model = small(dtype)
        state, mask = model.state_dict(), magnitude_mask(model, rate=0.5)
        copy = {name: value.clone() for name, value in state.items()}
        new = control(state, mask, source(9))
        for name, value in state.items():
            assert torch.equal(value, copy[name]), "the given state was changed"
            assert new[name].dtype == value.dtype
            if name in mask:
                assert new[name][~mask[name]].eq(0).all()
                assert not torch.equal(new[name][mask[name]], value[mask[name]])
            else:
                assert torch.equal(new[name], value)
        again = control(state, mask, source(9))
        assert all(torch.equal(again[name], new[name]) for name in new)

    def test_random_mask_keeps_counts(self):
        mask = magnitude_mask(small(), rate={"output": 0.3, "*": 0.6})
        new = random_mask(mask, source())
        assert new.counts() == mask.counts()
        assert new != mask
        assert random_mask(mask, source()) == new

    @settings(max_examples=30)
    @given(st.integers(0, 2**31))
    def test_shuffled_and_drawn_values_are_the_tickets(self, seed):
        state, mask = small().state_dict(), magnitude_mask(small(), rate=0.5)
        shuffled = shuffle_within_layer(state, mask, source(seed))
        drawn = reinitialise_from_ticket(state, mask, source(seed))
        for name, kept in mask.items():
            ticket = state[name][kept]
            assert torch.equal(shuffled[name][kept].sort().values, ticket.sort().values)
            assert torch.isin(drawn[name][kept], ticket).all()

    def test_signs_are_kept(self):
        state, mask = small().state_dict(), magnitude_mask(small(), rate=0.5)
        new = keep_sign(state, mask, source())
        assert all(torch.equal(new[n].sign(), torch.where(kept, state[n], 0).sign()) for n, kept in mask.items())

    def test_new_weights_follow_the_given_distribution_whatever_the_mask(self):
        state = {"w": torch.ones(400, 600), "b": torch.ones(3)}
        full = Mask({"w": torch.ones(400, 600)})
        new = reinitialise(state, full, source())["w"]
        assert new.mean().abs() < 5 * math.sqrt(2 / 1000 / new.numel())
        assert abs(new.var() - 2 / 1000) < 5 * (2 / 1000) * math.sqrt(2 / new.numel())
        half = random_mask(Mask({"w": torch.arange(240_000).view(400, 600) % 2}), source(2))
        assert torch.equal(reinitialise(state, half, source())["w"], torch.where(half["w"], new, 0))
        uniform = reinitialise(
            state, full, source(), lambda weight, generator: weight.uniform_(2, 3, generator=generator)
        )
        assert uniform["w"].min() >= 2
        assert uniform["b"].eq(1).all()

    def test_noise_is_in_units_of_the_layer(self):
        state = {"w": 0.01 * torch.randn(300, 300, generator=source())}
        full = Mask({"w": torch.ones(300, 300)})
        noise = perturb(state, full, 3.0, source(1))["w"] - state["w"]
        assert noise.std().item() == pytest.approx(3 * state["w"].std().item(), rel=0.02)
        assert torch.equal(perturb(state, full, 0.0, source(1))["w"], state["w"])
        for sigma in (-1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match="sigma"):
                perturb(state, full, sigma, source())

    @pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS.keys())
    def test_refuses_a_mask_that_does_not_fit(self, control):
        with pytest.raises(ValueError, match="no parameter 'x'"):
            control(small().state_dict(), Mask({"x": torch.ones(2)}), source())


class TestCurves:
    @given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 1.0, math.nan, math.inf]), min_size=1, max_size=30))
    def test_early_stop_is_the_first_finite_minimum(self, losses):
        finite = [value for value in losses if math.isfinite(value)]
        if finite:
            assert early_stop(losses) == losses.index(min(finite))
        else:
            with pytest.raises(ValueError, match="finite"):
                early_stop(losses)

    def test_smoothing_ignores_a_lone_dip(self):
        losses = torch.tensor([5.0, 1.0, 5.0, 3.0, 2.0, 3.0, 4.0])
        assert early_stop(losses) == 1
        assert early_stop(losses, smooth=3) == 4
        for smooth in (0, 2, -1):
            with pytest.raises(ValueError, match="smooth"):
                early_stop(losses, smooth=smooth)

    def test_time_to_level(self):
        assert time_to_level([3.0, 2.0, 1.0, 2.0], 2.0) == 1
        assert time_to_level([3.0, math.nan, 1.0], 0.5) is None
        with pytest.raises(ValueError, match="finite"):
            early_stop([])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    model = small().cuda()
    mask = magnitude_mask(model, rate=0.5)
    assert mask == magnitude_mask(small(), rate=0.5)

    def train(model, mask):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.ones(4, 1, 6, 6, device="cuda")).square().sum().backward()
            optimizer.step()

    for level in iterative_magnitude_pruning(model, train, rounds=2, rate=0.3, seed=1):
        assert all(level.trained[name][~kept].eq(0).all() for name, kept in level.mask.items())
    for control in CONTROLS.values():
        assert control(model.state_dict(), mask, source())["4.weight"].is_cuda
