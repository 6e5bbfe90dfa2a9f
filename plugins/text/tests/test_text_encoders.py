"""char-cnn and minilm: padding never leaks, they learn, and MiniLM is the real one."""

import importlib.metadata
import shutil

import huggingface_hub.constants
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import UserError
from modalign_text import minilm
from modalign_text.char_cnn import CharCNN
from modalign_text.minilm import MiniLM
from modalign_text.modality import Text

torch.set_num_threads(1)
TEXT = Text()


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30), min_size=1, max_size=6),
    kernel=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 5),
)
@settings(max_examples=15, deadline=None)
@torch.no_grad()
def test_char_cnn_rows_ignore_their_batch(texts, kernel, stride):
    torch.manual_seed(0)
    encoder = CharCNN(16, layers=3, kernel=kernel, stride=stride).eval()
    features = encoder(TEXT.collate(texts))
    for i, text in enumerate(texts):
        alone = encoder(TEXT.collate([text]))
        assert alone.mask.all()
        assert alone.mask.shape[1] == -(-len(text.encode()) // stride)
        torch.testing.assert_close(
            features.tokens[i][features.mask[i]], alone.tokens[0], atol=1e-5, rtol=1e-5
        )


def test_char_cnn_reads_every_byte():
    torch.manual_seed(0)
    encoder = CharCNN(16, layers=1, kernel=1, stride=3).eval()
    base = encoder(TEXT.collate(["abcdefg"])).tokens
    for i in range(7):
        changed = "abcdefg"[:i] + "z" + "abcdefg"[i + 1 :]
        assert not torch.allclose(encoder(TEXT.collate([changed])).tokens, base)


def test_char_cnn_gradient_reaches_every_parameter():
    encoder = CharCNN(16, dropout=0.1)
    features = encoder(TEXT.collate(TEXT.example(7)))
    (features.tokens * torch.randn_like(features.tokens)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_char_cnn_learns_the_script_of_a_sentence():
    torch.manual_seed(0)
    encoder, head = CharCNN(32, layers=2), torch.nn.Linear(32, 7)
    labels = torch.arange(70) % 7
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-2)

    def logits(seed):
        features = encoder(TEXT.collate(TEXT.example(70, seed)))
        weights = features.mask.unsqueeze(-1).float()
        return head((features.tokens * weights).sum(1) / weights.sum(1))

    for step in range(15):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits(step), labels).backward()
        optimiser.step()
    with torch.no_grad():
        assert (logits(1000).argmax(1) == labels).float().mean() > 0.95


@pytest.mark.parametrize("bad", [{"kernel": 4}, {"width": 0}, {"stride": 0}, {"layers": 0}])
def test_char_cnn_refuses_impossible_sizes(bad):
    with pytest.raises(ValueError, match="odd kernel"):
        CharCNN(**bad)


needs_package = pytest.mark.skipif(
    minilm.package_folder() is None, reason=f"the package {minilm.PACKAGE} is not installed"
)


@pytest.fixture(scope="module")
def real():
    return MiniLM().eval()


@torch.no_grad()
def pooled(encoder, texts):
    features = encoder(TEXT.collate(texts))
    weights = features.mask.unsqueeze(-1).float()
    return torch.nn.functional.normalize((features.tokens * weights).sum(1) / weights.sum(1), dim=1)


@needs_package
def test_minilm_knows_what_sentences_mean(real):
    texts = ["A cat sits on the mat.", "A kitten is resting on a rug.", "Interest rates rose by two percent."]
    cosines = pooled(real, texts) @ pooled(real, texts).T
    assert cosines[0, 1] > 0.5 > 0.2 > cosines[0, 2]


@needs_package
def test_minilm_equals_sentence_transformers(real):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    other = sentence_transformers.SentenceTransformer(str(minilm.package_folder()), device="cpu")
    texts = [*TEXT.example(14), "word " * 400, "Hello, World!"]
    expected = other.encode(texts, convert_to_tensor=True)
    torch.testing.assert_close(pooled(real, texts), expected, atol=1e-5, rtol=1e-5)


@needs_package
def test_minilm_names_the_extra_it_came_from(real):
    assert real.extras == ("minilm",)


def test_minilm_rows_ignore_their_batch(real):
    texts = [*TEXT.example(7), "longer " * 50]
    together = pooled(real, texts)
    for i, text in enumerate(texts):
        torch.testing.assert_close(together[i], pooled(real, [text])[0], atol=1e-5, rtol=1e-5)


@needs_package
@pytest.mark.parametrize("name", list(minilm.SHA256))
def test_changed_files_are_refused(name, tmp_path, monkeypatch):
    for file in minilm.SHA256:
        shutil.copy(minilm.package_folder() / file, tmp_path / file)
    with open(tmp_path / name, "r+b") as file:
        file.seek(-2, 2)
        file.write(b"\n\n")
    monkeypatch.setattr(minilm, "package_folder", lambda: tmp_path)
    with pytest.raises(UserError, match=rf"{name}.*SHA-256"):
        MiniLM()
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"lacks {name}"):
        MiniLM()


def test_without_package_and_network_the_error_names_the_extra(tmp_path, monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="minilm"):
        MiniLM()


@needs_package
def test_none_of_the_packages_code_is_run(real):
    import sys

    assert minilm.PACKAGE.replace("-", "_") not in sys.modules
