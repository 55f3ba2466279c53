"""The scikit-learn adapter in its own checks, a pipeline and a search over parameters."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="pip install -e '.[scikit-learn]'")

from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from ov_minilm.integrations.sklearn import MiniLMVectorizer

ANIMALS = ["a cat sleeps", "the dog barks", "two horses graze", "birds in a tree", "a wolf pack", "fish swim"]
MONEY = ["interest rates", "the stock fell", "a bank loan", "taxes are due", "rent went up", "cheap credit"]
# Checks of scikit-learn that make no numbers up to fit; check_estimator itself stops where texts are wanted.
APPLY = """
do_not_raise_errors_in_init_or_set_params estimator_cloneable estimator_repr estimator_tags_renamed
get_params_invariance mixin_order no_attributes_set_in_init parameters_default_constructible set_params
valid_tag_types
""".split()


def test_check_estimator_passes_where_it_applies() -> None:
    """Parameters, clones, tags and base classes are as wanted; for the rest it says that it has no texts."""
    with pytest.warns(SkipTestWarning, match="string=True"):
        results = estimator_checks.check_estimator(MiniLMVectorizer(), on_fail=None)

    assert {"passed"} == {result["status"] for result in results}
    for name in APPLY:
        getattr(estimator_checks, f"check_{name}")("MiniLMVectorizer", MiniLMVectorizer())


def test_a_pipeline_learns_and_a_search_tunes_it() -> None:
    """Six texts a class teach a classifier behind it; a search sets its parameters by their names."""
    pipeline = make_pipeline(MiniLMVectorizer(threads=1), LogisticRegression())
    search = GridSearchCV(pipeline, {"minilmvectorizer__truncate": ["end", "mean"]}, cv=2)

    search.fit(ANIMALS + MONEY, [0] * 6 + [1] * 6)

    assert [0, 1] == list(search.predict(["a kitten purrs", "the price of money"]))
    names = pipeline[0].get_feature_names_out()
    assert ["minilmvectorizer0", "minilmvectorizer383"] == list(names[[0, -1]])


def test_it_is_cloned_and_pickled() -> None:
    """Clones and pickles keep parameters and give the same vectors."""
    vectorizer = MiniLMVectorizer(threads=1)

    for other in (clone(vectorizer), pickle.loads(pickle.dumps(vectorizer))):  # noqa: S301
        assert vectorizer.get_params() == other.get_params()
        assert np.array_equal(vectorizer.transform(MONEY), other.transform(MONEY))
