"""Decoding: likelihoods are torch's CTC loss, the beam finds the best text."""

import gzip
import itertools
import math

import numpy as np
import pytest
import torch

from ocr.alphabet import Alphabet
from ocr.recognizers.ctc.calibration import Calibration, cross_fitted, reliability
from ocr.recognizers.ctc.decoding import Decoder, greedy, log_likelihoods, log_softmax
from ocr.recognizers.ctc.language_model import CharacterModel
from ocr.recognizers.ctc.lexicon import Lexicon
from ocr.recognizers.ctc.settings import DecodingSettings

ALPHABET = Alphabet(("କ", "ଖ", "ଗ"))


def random_log_probs(
    columns: int, batch: int, classes: int, seed: int, sharpness: float = 2.0
) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return log_softmax(
        (sharpness * draw.standard_normal((columns, batch, classes))).astype(np.float32)
    )


def test_likelihoods_are_torchs_ctc_loss() -> None:
    log_probs_TBK, lengths_B = random_log_probs(20, 6, 8, 1), np.array([20, 3, 12, 20, 1, 7])
    targets = [[1, 2, 2, 3], [1, 1], [], [5, 4, 3, 2, 1, 1, 7], [2], [3, 3, 3]]
    ours = log_likelihoods(log_probs_TBK, lengths_B, targets)
    flat, target_lengths = (
        torch.tensor([i for target in targets for i in target]),
        torch.tensor([len(target) for target in targets]),
    )
    theirs = torch.nn.functional.ctc_loss(
        torch.from_numpy(log_probs_TBK).double(),
        flat,
        torch.from_numpy(lengths_B),
        target_lengths,
        0,
        "none",
    )
    np.testing.assert_allclose(-ours, theirs.numpy(), rtol=1e-6)


def test_what_a_network_cannot_write_is_impossible() -> None:
    log_probs_TBK = random_log_probs(4, 1, 4, 2)
    assert log_likelihoods(log_probs_TBK, np.array([2]), [[1, 1]])[0] == -math.inf


def test_a_wide_beam_without_language_model_finds_the_most_likely_text() -> None:
    decoder = Decoder(
        ALPHABET, DecodingSettings(method="beam", beam_width=200, lm_order=0, length_bonus=0.0)
    )
    texts = [
        list(ids) for length in range(5) for ids in itertools.product((1, 2, 3), repeat=length)
    ]
    for seed in range(10):
        log_probs_TBK = random_log_probs(4, 1, 4, seed, 1.0)
        best = max(texts, key=lambda ids: log_likelihoods(log_probs_TBK, np.array([4]), [ids])[0])
        assert decoder.read(log_probs_TBK, np.array([4]))[0].text == ALPHABET.decode(best)


def test_the_beam_and_the_best_path_agree_where_the_network_is_sure() -> None:
    log_probs_TBK = random_log_probs(30, 8, 4, 3, 20.0)
    lengths_B = np.arange(23, 31)
    beam = Decoder(ALPHABET, DecodingSettings(method="beam", lm_order=0, length_bonus=0.0)).read(
        log_probs_TBK, lengths_B
    )
    assert [reading.text for reading in beam] == [
        reading.text for reading in Decoder(ALPHABET).read(log_probs_TBK, lengths_B)
    ]


def test_the_language_model_decides_what_the_image_leaves_open() -> None:
    logits_TBK = np.full((3, 1, 4), -20.0, np.float32)
    logits_TBK[0, 0, 1] = logits_TBK[1, 0, 0] = 0.0
    logits_TBK[2, 0, 2], logits_TBK[2, 0, 3] = 0.1, 0.0  # ଖ a little likelier than ଗ
    model = CharacterModel.trained(["କଗ"] * 5 + ["ଖ"])
    assert Decoder(ALPHABET).read(log_softmax(logits_TBK), np.array([3]))[0].text == "କଖ"
    assert (
        Decoder(ALPHABET, DecodingSettings(method="beam"), model)
        .read(log_softmax(logits_TBK), np.array([3]))[0]
        .text
        == "କଗ"
    )


def test_probabilities_of_a_context_add_up_to_one() -> None:
    model = CharacterModel.trained(["ab", "ac", "abc", "b"], order=3)
    for context in ("", "a", "ab", "zz"):
        seen = sum(
            math.exp(model.log_prob(context, character)) for character in ("a", "b", "c", "")
        )
        assert seen == pytest.approx(1 - math.exp(model.log_prob(context, "never seen")), abs=1e-9)


def test_witten_bell_as_worked_by_hand() -> None:
    model = CharacterModel.trained(["ab", "ac"], order=2)
    # one-character grams: a a b c END END: 6 seen, 4 kinds, 5 characters with the unknown one;
    # after "a": b and c, 2 kinds
    alone = (1 + 4 / 5) / (6 + 4)
    assert math.exp(model.log_prob("a", "b")) == pytest.approx((1 + 2 * alone) / (2 + 2))


def test_a_language_model_comes_back_from_its_file() -> None:
    model = CharacterModel.trained(["ଓଡ଼ିଆ ଲିପି", "ลิปิ"], order=4)
    again = CharacterModel.from_bytes(model.to_bytes())
    assert (
        again.counts == model.counts and again.order == 4 and again.to_bytes() == model.to_bytes()
    )


def test_digits_are_one_character_for_the_language_model() -> None:
    model = CharacterModel.trained(["ข้อ 1.", "ข้อ 2.", "ข้อ ๒."] * 5, order=4)
    assert model.log_prob("ข้อ ", "9") == model.log_prob("ข้อ ", "๒") > math.log(0.05)
    assert model.log_prob("ข้อ 7", ".") == model.log_prob("ข้อ ๑", ".") > math.log(0.5)
    digits = [model.log_prob("ข้อ ", digit) for digit in "0123456789"]
    assert sum(map(math.exp, digits)) > 0.5
    again = CharacterModel.from_bytes(model.to_bytes())
    assert again.one_digit and again.log_prob("ข้อ ", "3") == digits[0]
    assert again.with_texts(["๕"]).one_digit


def test_a_language_model_from_before_keeps_its_digits_apart() -> None:
    content = gzip.compress(b"2\n1\t3\n2\t1\n\x02\t4\n\x021\t3\n\x022\t1")
    model = CharacterModel.from_bytes(content)
    assert not model.one_digit and model.log_prob("", "1") > model.log_prob("", "2")
    assert gzip.decompress(model.to_bytes()).startswith(b"2\n")


def test_a_column_that_says_nothing_extends_few_beams() -> None:
    alphabet, settings = (
        Alphabet(tuple(map(chr, range(97, 97 + 120)))),
        DecodingSettings(method="beam"),
    )
    tried = set[tuple[str, str]]()

    class Counting(CharacterModel):
        def log_prob(self, context: str, character: str) -> float:
            tried.add((context, character))
            return 0.0

    hopeless = np.full((6, 1, 121), -math.log(121), np.float32)
    hopeless[:, 0, 40] += 0.1
    Decoder(alphabet, settings, Counting(1, {})).read(hopeless, np.array([6]))
    assert 0 < len(tried) <= 6 * settings.beam_width * 16 + settings.beam_width


def test_new_texts_join_a_language_model_and_weigh_half_of_it() -> None:
    base = CharacterModel.trained(["ab"] * 100, order=3)
    joined = base.with_texts(["xy", "xz"])
    assert joined.counts["ab"] == 100 and joined.counts["x"] == 50
    assert math.exp(joined.log_prob("x", "y")) > 0.4 > 0.01 > math.exp(base.log_prob("x", "y"))
    assert base.with_texts([]).counts == base.counts


def test_the_lexicon_fixes_one_letter_and_leaves_what_it_cannot_decide() -> None:
    lexicon = Lexicon.from_bytes(Lexicon(["ଓଡ଼ିଶା", "ଭାଷା", "ଭାରତ", "ଭାରତୀ"]).to_bytes())
    assert lexicon.corrected("ଓଡ଼ିଶ ଭାରତ") == "ଓଡ଼ିଶା ଭାରତ"
    assert lexicon.corrected("ଭାରତା") == "ଭାରତା"  # ଭାରତ and ଭାରତୀ are as near
    assert lexicon.corrected("କଟକ") == "କଟକ"


def test_calibration_makes_confidence_the_share_that_is_right() -> None:
    draw = np.random.default_rng(5)
    truth = draw.uniform(0.05, 0.95, 4000)
    right = (draw.random(4000) < truth).tolist()
    overconfident = (1 / (1 + np.exp(-(2 * np.log(truth / (1 - truth)) + 1)))).tolist()
    before, after = (
        reliability(overconfident, right),
        reliability(cross_fitted(overconfident, right), right),
    )
    assert before.expected_error > 0.1 > 0.03 > after.expected_error
    fitted = Calibration.fitted(overconfident, right)
    assert fitted.slope == pytest.approx(0.5, abs=0.05) and fitted.intercept == pytest.approx(
        -0.5, abs=0.1
    )


def test_calibration_does_not_run_away_where_the_sure_readings_are_nearly_all_right() -> None:
    draw = np.random.default_rng(6)
    p = np.concatenate(
        [draw.uniform(0.0, 0.3, 150), draw.uniform(0.3, 0.9, 250), 1 - draw.exponential(1e-4, 1600)]
    ).clip(1e-9, 1 - 1e-9)
    truth = np.concatenate([np.full(150, 0.45), np.full(250, 0.8), np.full(1600, 0.998)])
    right = (draw.random(2000) < truth).tolist()
    order = draw.permutation(2000)
    mixed, right = p[order].tolist(), [right[i] for i in order]
    assert 0.05 < Calibration.fitted(mixed, right).slope < 5
    assert reliability(cross_fitted(mixed, right), right).expected_error < 0.04


def test_confidence_stays_the_likelihood_where_nothing_can_be_learnt() -> None:
    assert Calibration.fitted([0.5, 0.9] * 50, [True, True] * 50) == Calibration()
    assert Calibration.fitted([0.5, 0.9] * 10, [False, True] * 10) == Calibration()
    assert Calibration()(math.log(0.3)) == pytest.approx(0.3)


def test_best_path_merges_repeats_then_drops_blanks() -> None:
    assert greedy([0, 1, 1, 0, 1, 2, 2, 0]) == [1, 1, 2]
