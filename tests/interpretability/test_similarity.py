"""CKA's algebra against its definition, brute force and finite differences; what is undefined; what is refused."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etude.interpretability import cka_from_grams, cka_matrix, cka_pairs, error_consistency, gram, linear_cka, rsa

FORMS = ("gram", "features")


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_definition(x, y, debiased):
    """CKA written out: H K H, or Song et al.'s estimator with loops over samples."""
    n = len(x)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    if not debiased:
        h = torch.eye(n, dtype=x.dtype) - 1 / n
        hsic = lambda a, b: torch.trace(h @ a @ h @ h @ b @ h)  # noqa: E731
    else:

        def hsic(a, b):
            total = 0.0
            for i, j, q, r in permutations(range(n), 4):  # the U-statistic, over all ordered quadruples
                total += a[i, j] * (b[i, j] + b[q, r] - 2 * b[i, q])
            return total / math.perm(n, 4)

    return hsic(k, l) / (hsic(k, k) * hsic(l, l)) ** 0.5


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_cka_is_its_definition(form, debiased):
    x, y = draw(7, 3) + 2, draw(7, 5, seed=1) @ draw(5, 5, seed=2)
    y = y + x @ draw(3, 5, seed=3)
    expected = by_definition(x, y, debiased)
    assert linear_cka(x, y, debiased=debiased, form=form) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("form", FORMS)
@given(seed=st.integers(0, 10**6), n=st.integers(5, 12), d=st.integers(1, 15), scale=st.floats(1e-12, 1e12))
def test_cka_ignores_rotation_scale_shift_and_order(form, debiased, seed, n, d, scale):
    x, y = draw(n, d, seed=seed), draw(n, 4, seed=seed + 1)
    options = {"debiased": debiased, "form": form}
    value = linear_cka(x, y, **options)
    rotation = torch.linalg.qr(draw(d, d, seed=seed + 2))[0]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for changed in (x @ rotation, scale * x, x + draw(d, seed=seed + 3)):
        assert linear_cka(changed, y, **options) == pytest.approx(float(value), abs=1e-9)
    assert linear_cka(x[order], y[order], **options) == pytest.approx(float(value), abs=1e-10)
    assert linear_cka(y, x, **options) == pytest.approx(float(value), abs=1e-10)
    assert linear_cka(x, x, **options) == pytest.approx(1.0, abs=1e-10)
    assert abs(value) <= 1 + 1e-10


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("d", "e"), [(2, 3), (40, 5), (30, 60)])
def test_both_forms_grams_and_the_matrix_agree(debiased, d, e):
    x, y = draw(20, d) + 1, draw(20, e, seed=1).reshape(20, 1, e, 1)
    values = [linear_cka(x, y, debiased=debiased, form=form) for form in (*FORMS, "auto")]
    flat = y.flatten(1)
    values.append(cka_from_grams(gram(x), gram(y), debiased=debiased))
    values.append(cka_from_grams(x @ x.T, flat @ flat.T, debiased=debiased))
    values.append(cka_matrix([x, y], debiased=debiased)[0, 1])
    values.append(cka_matrix([x], [y, x], debiased=debiased)[0, 0])
    assert torch.stack(values) == pytest.approx(values[0].expand(len(values)), abs=1e-12)
    assert cka_pairs([x], [y, x], [(0, 1), (0, 0)], debiased=debiased)[1] == pytest.approx(float(values[0]), abs=1e-12)
    mixed = cka_pairs([x], [flat @ flat.T], [(0, 0)], debiased=debiased, grams=True)
    assert mixed[0] == pytest.approx(float(values[0]), abs=1e-12)
    assert torch.allclose(cka_matrix([x, y], debiased=debiased).diagonal(), torch.ones(2, dtype=x.dtype))


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200, 700])
def test_gram_matrices_of_any_size_are_the_product(n):
    x = draw(n, 5).requires_grad_()
    centred = x - x.mean(0)
    weight = draw(n, n, seed=1)
    assert torch.allclose(gram(x), centred @ centred.T, atol=1e-12)
    one, other = (torch.autograd.grad((k * weight).sum(), x)[0] for k in (gram(x), centred @ centred.T))
    assert torch.allclose(one, other, atol=1e-10)


def test_second_derivatives_are_finite_differences():
    x, y = draw(6, 3).requires_grad_(), draw(6, 2, seed=1)
    assert torch.autograd.gradgradcheck(lambda z: linear_cka(z, y, form="gram"), x, atol=1e-6)


def test_a_batchs_gram_matrix_is_a_part_of_the_whole_ones():
    x, y = draw(30, 6) * 3 + 5, draw(30, 4, seed=1)
    index = torch.tensor([3, 29, 0, 7, 8, 21])
    part = gram(x)[index][:, index]
    for debiased in (False, True):
        expected = linear_cka(x[index], y[index], debiased=debiased)
        assert cka_from_grams(part, gram(y[index]), debiased=debiased) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize(
    "measure",
    [
        *(lambda x, y, f=form, b=b: linear_cka(x, y, debiased=b, form=f) for form in FORMS for b in (False, True)),
        lambda x, y: cka_from_grams(x @ x.T, y @ y.T, debiased=True),
        lambda x, y: cka_matrix([x], [y])[0, 0],
        rsa,
    ],
)
def test_gradients_are_finite_differences(measure):
    x, y = draw(6, 3).requires_grad_(), draw(6, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(measure, (x, y), eps=1e-6, atol=1e-6)


def test_the_biased_estimate_rises_with_the_width_and_the_debiased_does_not():
    draws = [(draw(64, 256, seed=2 * i), draw(64, 256, seed=2 * i + 1)) for i in range(20)]
    biased = torch.stack([linear_cka(x, y) for x, y in draws])
    debiased = torch.stack([linear_cka(x, y, debiased=True) for x, y in draws])
    assert biased.mean() == pytest.approx(256 / (256 + 64), abs=0.02)
    assert debiased.mean() == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("n", [4, 5, 9])
@given(seed=st.integers(0, 10**6))
def test_the_debiased_estimate_of_a_representation_with_itself_is_no_less_than_zero(n, seed):
    x = draw(n, 3, seed=seed)
    value = linear_cka(x, draw(n, 2, seed=seed + 1), debiased=True)
    assert -1 - 1e-9 <= value <= 1 + 1e-9  # so neither root was of a negative number


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_constant_features_share_nothing_and_pull_at_nothing(form, debiased, dtype):
    x = torch.full((50, 7), 0.1, dtype=dtype).requires_grad_()
    y = draw(50, 7, dtype=dtype).requires_grad_()
    value = linear_cka(x, y, debiased=debiased, form=form)
    value.backward()
    assert value == 0
    assert not x.grad.any()
    assert not y.grad.any()
    assert cka_from_grams(x @ x.T, y @ y.T, debiased=debiased) == 0


def test_samples_equally_far_apart_have_no_debiased_alignment():
    assert linear_cka(torch.eye(8), draw(8, 3, dtype=torch.float32), debiased=True) == 0


def test_activations_that_are_not_finite_show():
    x = draw(6, 3)
    x[2, 1] = math.inf
    for value in (linear_cka(x, draw(6, 2)), rsa(x, draw(6, 2)), linear_cka(x, draw(6, 2), debiased=True)):
        assert math.isnan(value)


def test_tiny_and_huge_activations_are_compared_in_single_precision():
    x, y = draw(30, 8, dtype=torch.float32), draw(30, 5, seed=1, dtype=torch.float32)
    expected = linear_cka(x, y)
    for scale in (1e-15, 1e12):
        assert linear_cka(scale * x, y) == pytest.approx(float(expected), rel=1e-4)
    far = linear_cka(x + 1000, y)  # a shift is removed before the products, which would lose it
    assert far == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("offset", [0.0, 0.5, 1.0, 2.0, 30.0])
def test_the_gram_matrix_is_as_exact_whichever_way_it_is_centred(offset):
    x = draw(40, 600, dtype=torch.float32) + offset
    x[:, :300] -= offset  # the mean is not alike everywhere
    wide = x.double() - x.double().mean(0)
    exact = wide @ wide.T
    assert (gram(x) - exact).abs().max() < 3e-6 * exact.diagonal().max()


def test_half_precision_and_autocast_are_computed_in_single_precision():
    x, y = draw(30, 8).bfloat16(), draw(30, 5, seed=1).bfloat16()
    expected = linear_cka(x.float(), y.float())
    assert linear_cka(x, y) == expected
    with torch.autocast("cpu"):
        assert linear_cka(x.float(), y.float(), form="gram") == linear_cka(x.float(), y.float(), form="gram")
        assert linear_cka(x, y) == expected
        assert gram(x).dtype == torch.float32
    assert linear_cka(x.float(), y.double()).dtype == torch.float64
    assert cka_matrix([x], [y.double()]).dtype == torch.float64


def test_rsa_is_the_correlation_of_cosines():
    x, y = draw(9, 4), draw(9, 6, seed=1)
    above = torch.triu_indices(9, 9, 1)
    pairs = torch.stack([torch.nn.functional.cosine_similarity(z[above[0]], z[above[1]]) for z in (x, y)])
    assert rsa(x, y) == pytest.approx(float(torch.corrcoef(pairs)[0, 1]), abs=1e-12)
    assert rsa(x, 3 * x @ torch.linalg.qr(draw(4, 4))[0]) == pytest.approx(1.0, abs=1e-12)
    assert rsa(torch.ones(5, 3), draw(5, 2, dtype=torch.float32)) == 0


def test_error_consistency_is_cohens_kappa():
    from sklearn.metrics import cohen_kappa_score

    labels, one, other = (torch.randint(4, (200,), generator=torch.Generator().manual_seed(i)) for i in range(3))
    expected = cohen_kappa_score(one == labels, other == labels)
    assert error_consistency(one, other, labels) == pytest.approx(expected, abs=1e-12)
    assert error_consistency(one, one, labels) == pytest.approx(1.0)
    assert math.isnan(error_consistency(labels, labels, labels))


REFUSED = {
    "one sample": (lambda: linear_cka(draw(1, 3), draw(1, 3)), "x: 1 samples .* at least 2"),
    "three, debiased": (lambda: linear_cka(draw(3, 3), draw(3, 3), debiased=True), "x: 3 samples .* at least 4"),
    "counts": (lambda: linear_cka(draw(5, 3), draw(6, 3)), "x, y: 5 and 6 samples"),
    "no features": (lambda: linear_cka(draw(5, 0), draw(5, 3)), r"x: .* \(5, 0\)"),
    "form": (lambda: linear_cka(draw(5, 2), draw(5, 3), form="kernel"), "form='kernel'"),
    "not square": (lambda: cka_from_grams(draw(5, 5), draw(5, 4)), r"l: .* \(5, 4\)"),
    "other sizes": (lambda: cka_from_grams(draw(5, 5), draw(6, 6)), "k, l: 5 and 6 samples"),
    "empty list": (lambda: cka_matrix([]), "xs: the list is empty"),
    "no pairs": (lambda: cka_pairs([draw(5, 2)], None, []), "pairs: the list is empty"),
    "no square": (lambda: cka_pairs([draw(5, 2)], [draw(5, 2)], [(0, 0)], grams=True), r"ys\[0\]: .* \(5, 2\)"),
    "one of a list": (lambda: cka_matrix([draw(5, 2)], [draw(5, 2), draw(4, 2)]), r"xs\[0\], ys\[1\]: 5 and 4"),
    "two for rsa": (lambda: rsa(draw(2, 3), draw(2, 3)), "x: 2 samples .* at least 3"),
    "labels": (lambda: error_consistency(torch.ones(3), torch.ones(3), torch.ones(2)), "predictions, others, labels"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_no_tensor_of_numbers_is_refused_by_name():
    with pytest.raises(TypeError, match=r"y: a tensor of torch\.int64"):
        linear_cka(draw(5, 2), torch.ones(5, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match="x: a list"):
        rsa([1.0], draw(5, 2))
