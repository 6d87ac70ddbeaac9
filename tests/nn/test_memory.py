"""The memory network beside its equations, written out sentence by sentence."""

import pytest
import torch

from etude.nn import MemoryNetwork, position_encoding


def by_the_equations(model, story, question):
    """Logits of one story, with the sums and the sharing of the paper spelled out."""
    tables = [torch.cat([torch.zeros(1, model.embeddings.shape[2]), table]) for table in model.embeddings.detach()]
    times, code = model.times.detach(), model.encoding

    def bag(table, sentence):
        return sum(code[j] * table[word] for j, word in enumerate(sentence))

    u = bag(tables[0], question)
    for hop in range(len(tables) - 1):
        kept = [i for i, sentence in enumerate(story) if sentence.any()]
        back = [len(story) - 1 - i for i in kept]  # the last sentence has number 0
        m = torch.stack([bag(tables[hop], story[i]) + times[hop, b] for i, b in zip(kept, back)])
        c = torch.stack([bag(tables[hop + 1], story[i]) + times[hop + 1, b] for i, b in zip(kept, back)])
        u = u + (m @ u).softmax(0) @ c
    return tables[-1] @ u


def test_logits_are_those_of_the_equations():
    generator = torch.Generator().manual_seed(0)
    model = MemoryNetwork(9, 6, 3, features=4, hops=3, deviation=0.7, generator=generator)
    story = torch.randint(1, 9, (5, 4, 3), generator=generator)  # fewer sentences than there is room for
    story[1, 0] = story[1, 1] = 0  # a shorter story
    question = torch.randint(1, 9, (5, 2), generator=generator)
    logits = model(story, question)
    for n in range(5):
        torch.testing.assert_close(logits[n], by_the_equations(model, story[n], question[n]), rtol=1e-4, atol=1e-5)


def test_the_order_of_words_and_sentences_matters():
    generator = torch.Generator().manual_seed(1)
    model = MemoryNetwork(9, 4, 3, deviation=0.7, generator=generator)
    story, question = torch.randint(1, 9, (2, 4, 3), generator=generator), torch.tensor([[1, 2]] * 2)
    logits = model(story, question)
    assert not torch.allclose(logits, model(story.flip(1), question), atol=1e-3)
    assert not torch.allclose(logits, model(story.flip(2), question), atol=1e-3)


def test_position_encoding_by_hand():
    code = position_encoding(2, 3)  # (1 - j / 2) - (k / 3) (1 - j)
    assert torch.allclose(code, torch.tensor([[0.5, 0.5, 0.5], [1 / 3, 2 / 3, 1.0]]))


def test_the_generator_decides_the_parameters():
    one, two = (MemoryNetwork(9, 4, 3, generator=torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(one.embeddings, two.embeddings)
    assert torch.equal(one.times, two.times)


@pytest.mark.parametrize("name", ["vocabulary", "sentences", "words", "features", "hops"])
def test_bad_arguments_are_named(name):
    options = {"vocabulary": 9, "sentences": 4, "words": 3, name: 1 if name == "vocabulary" else 0}
    with pytest.raises(ValueError, match=f"{name}={options[name]}"):
        MemoryNetwork(**options)
