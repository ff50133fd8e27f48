"""Splits scikit-learn's 1797 handwritten digits into a training and a test part: dataset.npz."""

import argparse

import numpy
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import cultivar


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder for dataset.npz")
    parser.add_argument("--test-fraction", type=float, default=0.3, help="part that training never sees")
    parser.add_argument("--seed", type=int, default=0, help="which digits go where")
    args = parser.parse_args()

    digits = load_digits()
    # Pixels are 0 to 16.
    parts = train_test_split(
        digits.data / 16.0, digits.target, test_size=args.test_fraction, random_state=args.seed, stratify=digits.target
    )
    arrays = dict(zip(("x_train", "x_test", "y_train", "y_test"), parts))
    # numpy dates every member 1980, so the same seed gives the same bytes and the same digest.
    path = cultivar.write(args.out, "dataset.npz", lambda file: numpy.savez_compressed(file, **arrays))
    print(f"{len(arrays['y_train'])} digits to train on and {len(arrays['y_test'])} to test with are in {path}")
    cultivar.report(
        {"train_samples": len(arrays["y_train"]), "test_samples": len(arrays["y_test"])},
        [cultivar.artifact("dataset", path, "Dataset")],
    )


if __name__ == "__main__":
    main()
