"""How good are samples? Arrays in, plain numbers out; each function says what it estimates, in which unit.

    mode_coverage(x, target.modes, target.sigma).modes_covered
    mmd_test(x, real, rng).p_value
    frechet_distance(classifier.features(x), classifier.features(real))

One figure alone says little: most depend on the number of samples. Compare at equal numbers, beside
a row in which held-out real data plays the generator.
"""

from tinygen.metrics.classifier import Classifier, load_classifier, save_classifier
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
from tinygen.metrics.two_sample import ClassifierTest, classifier_two_sample_test

__all__ = [
    "Classifier",
    "ClassifierTest",
    "Coverage",
    "MMDTest",
    "PrecisionRecall",
    "classifier_two_sample_test",
    "frechet_distance",
    "frechet_gaussians",
    "histogram_js",
    "histogram_kl",
    "ks_statistic",
    "ks_two_sample",
    "load_classifier",
    "median_bandwidth",
    "mmd2",
    "mmd_test",
    "mode_coverage",
    "precision_recall",
    "save_classifier",
    "sliced_wasserstein",
    "wasserstein_1d",
]
