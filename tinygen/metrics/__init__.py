"""How good are samples, codes and likelihoods? Each function takes arrays, and says what it estimates and in what unit.

    mode_coverage(x, target.modes, target.sigma).modes_covered
    mmd_test(x, real, rng).p_value
    frechet_distance(classifier.features(x), classifier.features(real))

A single figure says little, because most depend on the number of samples. Compare figures at equal numbers
of samples, and beside a row in which held-out real data takes the place of the generated samples.
"""

from tinygen.metrics.classifier import Classifier, load_classifier, save_classifier
from tinygen.metrics.codes import (
    active_units,
    knn_accuracy,
    pca_reconstruction,
    reconstruction_error,
)
from tinygen.metrics.coverage import Coverage, mode_coverage
from tinygen.metrics.distances import (
    MMDTest,
    median_bandwidth,
    mmd2,
    mmd_test,
    sliced_wasserstein,
    wasserstein_1d,
)
from tinygen.metrics.frechet import (
    PrecisionRecall,
    frechet_distance,
    frechet_gaussians,
    precision_recall,
)
from tinygen.metrics.histograms import histogram_js, histogram_kl, ks_statistic, ks_two_sample
from tinygen.metrics.likelihood import LogLikelihood, importance_log_likelihood
from tinygen.metrics.two_sample import ClassifierTest, classifier_two_sample_test

__all__ = [
    "Classifier",
    "ClassifierTest",
    "Coverage",
    "LogLikelihood",
    "MMDTest",
    "PrecisionRecall",
    "active_units",
    "classifier_two_sample_test",
    "frechet_distance",
    "frechet_gaussians",
    "histogram_js",
    "histogram_kl",
    "importance_log_likelihood",
    "knn_accuracy",
    "ks_statistic",
    "ks_two_sample",
    "load_classifier",
    "median_bandwidth",
    "mmd2",
    "mmd_test",
    "mode_coverage",
    "pca_reconstruction",
    "precision_recall",
    "reconstruction_error",
    "save_classifier",
    "sliced_wasserstein",
    "wasserstein_1d",
]
