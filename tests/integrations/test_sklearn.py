"""The scikit-learn adapter in the library's own checks, and in a search over parameters."""

import pytest

pytest.importorskip("sklearn", reason="pip install -e '.[scikit-learn]'")

from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from ov_minilm.integrations.sklearn import MiniLMVectorizer

ANIMALS = ["a cat sleeps", "the dog barks", "two horses graze", "birds in a tree", "a wolf pack", "fish swim"]
MONEY = ["interest rates", "the stock fell", "a bank loan", "taxes are due", "rent went up", "cheap credit"]
# The checks that use no numeric data; check_estimator skips estimators of texts.
CHECKS = """
do_not_raise_errors_in_init_or_set_params estimator_cloneable estimator_repr estimator_tags_renamed
get_params_invariance mixin_order no_attributes_set_in_init parameters_default_constructible set_params
valid_tag_types
""".split()


def test_the_checks_of_scikit_learn_pass() -> None:
    """Checks of parameters, clones, tags and base classes pass; all other checks need numeric data."""
    with pytest.warns(SkipTestWarning, match="string=True"):
        results = estimator_checks.check_estimator(MiniLMVectorizer(), on_fail=None)

    assert {"passed"} == {result["status"] for result in results}
    for name in CHECKS:
        getattr(estimator_checks, f"check_{name}")("MiniLMVectorizer", MiniLMVectorizer())


def test_a_grid_search_over_a_pipeline_learns_to_classify() -> None:
    """Six texts for each class are enough; the search sets parameters of the vectorizer by name."""
    pipeline = make_pipeline(MiniLMVectorizer(threads=1), LogisticRegression())
    search = GridSearchCV(pipeline, {"minilmvectorizer__truncate": ["end", "mean"]}, cv=2)

    search.fit(ANIMALS + MONEY, [0] * 6 + [1] * 6)

    assert [0, 1] == list(search.predict(["a kitten purrs", "the price of money"]))
    names = pipeline[0].get_feature_names_out()
    assert ["minilmvectorizer0", "minilmvectorizer383"] == list(names[[0, -1]])
