"""Holds what skl2onnx writes, and each operator of `ai.onnx.ml` alone, to ONNX Runtime.

Run by `cargo xtask test`. Exits 1 if an answer differs.
"""

import warnings

import numpy as np
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from small_models import Cases

DOMAIN = "ai.onnx.ml"
RANDOM = np.random.default_rng(11)


def split(load, classes=None):
    x, y = load(return_X_y=True)
    if classes is not None:
        x, y = x[y < classes], y[y < classes]
    order = np.random.default_rng(0).permutation(len(x))
    return x[order].astype(np.float32), y[order]


def exports(cases):
    """Trained models through skl2onnx, one row a request and four rows a request."""
    iris, iris_two = split(load_iris), split(load_iris, 2)
    cancer, diabetes, digits = split(load_breast_cancer), split(load_diabetes), split(load_digits)
    # Numbers that stand for kinds, beside numbers that are measured.
    mixed = np.concatenate([iris[0], RANDOM.integers(0, 4, (len(iris[0]), 2))], axis=1).astype(np.float32), iris[1]
    columns = ColumnTransformer([("kinds", OneHotEncoder(), [4, 5]), ("numbers", StandardScaler(), [0, 1, 2, 3])])
    holes = iris[0].copy()
    holes[::5, 1] = np.nan
    models = {
        "tree_classifier": (DecisionTreeClassifier(random_state=0), iris),
        "tree_regressor": (DecisionTreeRegressor(max_depth=6, random_state=0), diabetes),
        "random_forest": (RandomForestClassifier(20, random_state=0), iris),
        "random_forest_two": (RandomForestClassifier(20, random_state=0), cancer),
        "random_forest_digits": (RandomForestClassifier(50, random_state=0), digits),
        "random_forest_regressor": (RandomForestRegressor(20, random_state=0), diabetes),
        "extra_trees_regressor": (ExtraTreesRegressor(10, random_state=0), diabetes),
        "gradient_boosting": (GradientBoostingClassifier(n_estimators=20, random_state=0), iris),
        "gradient_boosting_two": (GradientBoostingClassifier(n_estimators=20, random_state=0), cancer),
        "gradient_boosting_regressor": (GradientBoostingRegressor(n_estimators=20, random_state=0), diabetes),
        "ada_boost": (AdaBoostClassifier(n_estimators=10, random_state=0), iris),
        "isolation_forest": (IsolationForest(n_estimators=10, random_state=0), iris),
        "logistic": (LogisticRegression(max_iter=500), iris),
        "logistic_two": (LogisticRegression(max_iter=500), iris_two),
        "linear": (LinearRegression(), diabetes),
        "ridge": (Ridge(), diabetes),
        "sgd": (SGDClassifier(random_state=0), iris),
        "sgd_log": (SGDClassifier(loss="log_loss", random_state=0), iris_two),
        "svc_rbf": (SVC(), iris),
        "svc_two": (SVC(kernel="poly"), iris_two),
        "svc_sigmoid": (make_pipeline(StandardScaler(), SVC(kernel="sigmoid")), iris),
        "svc_linear": (SVC(kernel="linear"), iris),
        "svr": (make_pipeline(StandardScaler(), SVR()), diabetes),
        "linear_svc": (LinearSVC(), iris),
        "one_class_svm": (OneClassSVM(), iris),
        "k_means": (KMeans(4, n_init=2, random_state=0), iris),
        "pca": (make_pipeline(StandardScaler(), PCA(2)), iris),
        "naive_bayes": (GaussianNB(), iris),
        "neighbours": (KNeighborsClassifier(3), iris),
        "perceptron": (make_pipeline(StandardScaler(), MLPClassifier((16, 8), max_iter=300, random_state=0)), iris),
        "perceptron_regressor": (make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(16,), max_iter=300, random_state=0)), diabetes),
        "columns": (make_pipeline(columns, LogisticRegression(max_iter=500)), mixed),
        "columns_forest": (make_pipeline(columns, RandomForestClassifier(10, random_state=0)), mixed),
        "imputed": (make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=500)), (holes, iris[1])),
        "scaled": (make_pipeline(MinMaxScaler(), RobustScaler(), Normalizer(), Ridge()), diabetes),
        "binned": (make_pipeline(KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf"), LogisticRegression()), iris),
        "binarized": (make_pipeline(Binarizer(threshold=2.0), LogisticRegression()), iris),
        "polynomial": (make_pipeline(PolynomialFeatures(2), StandardScaler(), Ridge()), diabetes),
        "ordinal": (make_pipeline(OrdinalEncoder(), DecisionTreeClassifier(random_state=0)), (mixed[0][:, 4:], mixed[1])),
    }
    for name, (model, (x, y)) in models.items():
        model.fit(x, y)
        maps = hasattr(model, "classes_") and not isinstance(model, LinearSVC)
        options = {id(model): {"zipmap": False}} if maps else None
        if isinstance(model, KNeighborsClassifier):
            options[id(model)]["optim"] = "cdist"
        exported = to_onnx(model, x[:1], options=options, target_opset={"": 18, DOMAIN: 3})
        cases.model(name, exported, [{"X": x[i : i + 1]} for i in range(12)])
        cases.model(f"{name}_rows", exported, [{"X": x[i : i + 4]} for i in range(0, 12, 4)])


def trees(cases):
    """Tree operators by hand: every mode, missing values, aggregates and transforms."""
    x = RANDOM.integers(-2, 3, (8, 3)).astype(np.float32)
    x[1, 0] = x[3, 1] = np.nan
    # Two trees: a node that asks feature 0 and one that asks feature 1 below it; and a small one.
    shape = dict(
        nodes_treeids=[0, 0, 0, 0, 0, 1, 1, 1],
        nodes_nodeids=[0, 1, 2, 3, 4, 0, 1, 2],
        nodes_featureids=[0, 1, 0, 0, 0, 2, 0, 0],
        nodes_truenodeids=[1, 3, 0, 0, 0, 1, 0, 0],
        nodes_falsenodeids=[2, 4, 0, 0, 0, 2, 0, 0],
    )

    def ensemble(what, mode, targets, weights, **more):
        modes = [mode, mode, "LEAF", "LEAF", "LEAF", mode, "LEAF", "LEAF"]
        attributes = dict(shape, nodes_modes=modes, **more)
        values = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0]
        if "nodes_values_as_tensor" not in attributes:
            attributes["nodes_values"] = values
        attributes |= {
            # One weight a leaf, or two.
            f"{what}_treeids": np.repeat([0, 0, 0, 1, 1], len(targets) // 5).tolist(),
            f"{what}_nodeids": np.repeat([2, 3, 4, 1, 2], len(targets) // 5).tolist(),
            f"{what}_ids": targets,
            f"{what}_weights": weights,
        }
        return attributes

    weights = [0.5, -1.25, 2.0, 0.25, -0.75]
    for mode in ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]:
        more = ensemble("target", mode, [0] * 5, weights)
        cases.node(f"regressor_{mode}", "TreeEnsembleRegressor", [x], domain=DOMAIN, version=3, n_targets=1, **more)
        for tracks in ([1] * 8, [1, 0, 0, 0, 0, 1, 0, 0]):
            name = f"regressor_{mode}_missing_{sum(tracks)}"
            missing = dict(more, nodes_missing_value_tracks_true=tracks)
            cases.node(name, "TreeEnsembleRegressor", [x], domain=DOMAIN, version=3, n_targets=1, **missing)
    for aggregate in ["SUM", "AVERAGE", "MIN", "MAX"]:
        for targets in ([0, 1, 0, 1, 1], [0, 0, 0, 1, 1], [1, 1, 1, 1, 1]):
            name = f"regressor_{aggregate}_{''.join(map(str, targets))}"
            more = ensemble("target", "BRANCH_LEQ", targets, weights, aggregate_function=aggregate)
            cases.node(name, "TreeEnsembleRegressor", [x], domain=DOMAIN, version=3, n_targets=2, **more)
            more["base_values"] = [0.5, -2.0]
            cases.node(f"{name}_base", "TreeEnsembleRegressor", [x], domain=DOMAIN, version=3, n_targets=2, **more)
    transforms = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]
    positive = [0.4, 0.1, 0.3, 0.05, 0.2]
    for transform in transforms:
        # Probit is defined from 0 to 1.
        w = positive if transform == "PROBIT" else weights
        more = ensemble("class", "BRANCH_LEQ", [0, 1, 2, 1, 0], w, post_transform=transform)
        three = dict(more, classlabels_int64s=[7, 5, 9])
        cases.node(f"classifier_{transform}", "TreeEnsembleClassifier", [x], 2, domain=DOMAIN, version=3, **three)
        for targets in ([0, 1] * 5, [0] * 5, [1] * 5):
            for base in ([], [0.125], [0.125, 0.25]):
                for w in (positive, weights):
                    if transform == "PROBIT" and w is weights:
                        continue
                    # What ONNX Runtime makes of these depends on memory that nothing wrote.
                    if len(set(targets)) == 1 and (len(base) == 2 or len(base) == 1 and targets[0] == 1):
                        continue
                    if transform == "PROBIT" and set(targets) == {0}:
                        continue
                    w2 = w if len(targets) == 5 else np.repeat(w, 2) * np.tile([1.0, 0.75], 5)
                    more = ensemble("class", "BRANCH_LEQ", targets, list(w2), post_transform=transform)
                    # ONNX Runtime answers 0 and 1 where both classes have weights, whatever they are called.
                    labels = [0, 1] if len(set(targets)) == 2 else [7, 5]
                    more |= {"classlabels_int64s": labels} | ({"base_values": base} if base else {})
                    name = f"classifier_{transform}_{len(targets)}_{targets[0]}_{len(base)}_{'positive' if w is positive else 'any'}"
                    cases.node(name, "TreeEnsembleClassifier", [x], 2, domain=DOMAIN, version=3, **more)
    tensor = lambda name, values, dtype=TensorProto.FLOAT: helper.make_tensor(name, dtype, [len(values)], values)
    for mode in range(7):
        for aggregate in range(4):
            more = dict(
                n_targets=2,
                aggregate_function=aggregate,
                post_transform=0,
                nodes_featureids=[0, 1, 2],
                nodes_splits=tensor("splits", [0.0, 1.0, -1.0]),
                nodes_modes=tensor("modes", [mode] * 3, TensorProto.UINT8),
                nodes_truenodeids=[1, 0, 3],
                nodes_trueleafs=[0, 1, 1],
                nodes_falsenodeids=[2, 1, 4],
                nodes_falseleafs=[1, 1, 1],
                leaf_targetids=[0, 1, 0, 1, 0],
                leaf_weights=tensor("weights", weights),
                tree_roots=[0, 2],
            )
            if mode == 6:
                nan = float("nan")
                more["membership_values"] = tensor("members", [0.0, 1.0, nan, 1.0, 2.0, nan, -1.0, nan])
            cases.node(f"ensemble_{mode}_{aggregate}", "TreeEnsemble", [x], domain=DOMAIN, version=5, **more)


def operators(cases):
    """The other operators one by one."""
    x = RANDOM.standard_normal((5, 4)).astype(np.float32)
    transforms = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"]

    def add(name, operator, inputs, outputs=1, version=3, **more):
        cases.node(name, operator, inputs, outputs, domain=DOMAIN, version=version, **more)

    def numbers(n):
        return RANDOM.standard_normal(n).astype(np.float32).tolist()

    for transform in transforms:
        add(f"linear_regressor_{transform}", "LinearRegressor", [x], coefficients=numbers(8), intercepts=numbers(2), targets=2, post_transform=transform)
        for classes in (1, 2, 3):
            labels = {1: [4, 6], 2: [4, 6], 3: [4, 6, 2]}[classes]
            more = dict(coefficients=numbers(4 * classes), intercepts=numbers(classes), classlabels_ints=labels, post_transform=transform)
            add(f"linear_classifier_{transform}_{classes}", "LinearClassifier", [x], 2, version=1, **more)
    add("linear_regressor", "LinearRegressor", [x], coefficients=numbers(4), intercepts=numbers(1))
    for kernel, parameters in [("LINEAR", [0.0, 0.0, 0.0]), ("POLY", [0.3, 0.5, 3.0]), ("POLY", [0.3, 0.5, 2.0]), ("RBF", [0.4, 0.0, 0.0]), ("SIGMOID", [0.2, 0.1, 0.0])]:
        name = f"{kernel}_{parameters[2]:.0f}"
        more = dict(kernel_type=kernel, kernel_params=parameters)
        add(f"svm_regressor_{name}", "SVMRegressor", [x], n_supports=3, support_vectors=numbers(12), coefficients=numbers(3), rho=numbers(1), **more)
        add(f"svm_one_class_{name}", "SVMRegressor", [x], n_supports=3, support_vectors=numbers(12), coefficients=numbers(3), rho=numbers(1), one_class=1, **more)
        for transform in transforms:
            for per_class in ([2, 3], [2, 1, 3]):
                count, pairs = sum(per_class), len(per_class) * (len(per_class) - 1) // 2
                machine = dict(
                    more,
                    vectors_per_class=per_class,
                    support_vectors=numbers(4 * count),
                    coefficients=numbers(count * (len(per_class) - 1)),
                    rho=numbers(pairs),
                    classlabels_ints=[8, 3, 5][: len(per_class)],
                    post_transform=transform,
                )
                add(f"svm_{name}_{transform}_{len(per_class)}", "SVMClassifier", [x], 2, version=1, **machine)
    add("svm_linear", "SVMClassifier", [x], 2, version=1, coefficients=numbers(12), rho=numbers(1), classlabels_ints=[4, 6, 2], kernel_type="LINEAR", kernel_params=[0.0, 0.0, 0.0])
    add("scaler", "Scaler", [x], version=1, offset=numbers(4), scale=numbers(4))
    add("scaler_one", "Scaler", [x], version=1, offset=[0.5], scale=[2.0])
    add("scaler_ints", "Scaler", [np.arange(8).reshape(2, 4)], version=1, offset=[0.5], scale=[2.0])
    rows = np.concatenate([x, np.zeros((1, 4), np.float32), -np.abs(x[:1])])
    for norm in ["MAX", "L1", "L2"]:
        add(f"normalizer_{norm}", "Normalizer", [rows], version=1, norm=norm)
    holes = x.copy()
    holes[0, 1] = holes[3, 2] = np.nan
    add("imputer_nan", "Imputer", [holes], version=1, imputed_value_floats=numbers(4), replaced_value_float=float("nan"))
    add("imputer_number", "Imputer", [np.round(x)], version=1, imputed_value_floats=[9.0], replaced_value_float=1.0)
    add("imputer_ints", "Imputer", [np.arange(8).reshape(2, 4) % 3], version=1, imputed_value_int64s=[9], replaced_value_int64=1)
    add("binarizer", "Binarizer", [x], version=1, threshold=0.25)
    add("one_hot", "OneHotEncoder", [np.array([[3, 1], [1, 7]])], version=1, cats_int64s=[1, 3, 7], zeros=1)
    add("one_hot_floats", "OneHotEncoder", [np.array([[3, 1], [2, 7]], np.float32)], version=1, cats_int64s=[1, 3, 7], zeros=1)
    add("extractor", "ArrayFeatureExtractor", [x, np.array([2, 0], np.int64)], version=1, constants=(1,))
    add("extractor_row", "ArrayFeatureExtractor", [x[0], np.array([[2], [0]], np.int64)], version=1, constants=(1,))
    add("vectorizer", "FeatureVectorizer", [x, x[:, :2]], version=1, inputdimensions=[4, 2])
    keys = np.array([[3, 1], [9, 7]])
    for version in (2, 4):
        add(f"encoder_ints_{version}", "LabelEncoder", [keys], version=version, keys_int64s=[1, 3, 7], values_int64s=[0, -5, 2], default_int64=40)
        add(f"encoder_floats_{version}", "LabelEncoder", [keys.astype(np.float32)], version=version, keys_floats=[1.0, 3.0, 7.0], values_int64s=[0, -5, 2])
        add(f"encoder_to_floats_{version}", "LabelEncoder", [keys], version=version, keys_int64s=[1, 3, 7], values_floats=[0.5, -5.5, 2.25], default_float=4.0)


def main():
    warnings.filterwarnings("ignore")
    cases = Cases()
    exports(cases)
    trees(cases)
    operators(cases)
    cases.run()


if __name__ == "__main__":
    main()
