"""scikit-learn: texts in, a matrix out, as the first step of a pipeline. Extra: scikit-learn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ov_minilm.integrations import Adapter, extra
from ov_minilm.runtime.texts import iterate
from ov_minilm.spec import FloatArray

with extra("scikit-learn"):
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import Tags


@dataclass(repr=False, eq=False)
class MiniLMVectorizer(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]  # scikit-learn has no types
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
    Adapter,
):
    """Turns texts into unit vectors. `fit` learns nothing."""

    def __post_init__(self) -> None:
        """Do not open the model yet, because scikit-learn copies estimators that it never runs."""

    def fit(self, X: Iterable[str], y: object = None) -> MiniLMVectorizer:
        """Return self: there is nothing to fit. TypeError as in `transform`."""
        iterate(X)
        return self

    def transform(self, X: Iterable[str]) -> FloatArray:
        """Return float32 (N, D) for N texts.

        Raises:
            TypeError: X is not a column of texts. A ColumnTransformer passes a column if it is given a name,
                "text", and a data frame if it is given a list of names.
        """
        return self.embedder.encode(iterate(X), truncate=self.truncate)

    @property
    def _n_features_out(self) -> int:
        return self.embedder.spec.dim

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        tags.requires_fit = False
        tags.no_validation = True
        return tags
