"""Judges model.pkl by the part of dataset.npz that training never saw."""

import argparse
import pickle

import numpy

import cultivar


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="URI of model.pkl")
    parser.add_argument("--data", required=True, help="URI of dataset.npz")
    args = parser.parse_args()

    data = numpy.load(cultivar.path_of(args.data))
    # A pickle runs code when it is read: only models of our own volume come here.
    with open(cultivar.path_of(args.model), "rb") as file:
        model = pickle.load(file)
    right = model.predict(data["x_test"]) == data["y_test"]
    print(f"{int(right.sum())} of {len(right)} digits read right")
    cultivar.report({"acc": round(float(right.mean()), 6), "errors": int((~right).sum())})


if __name__ == "__main__":
    main()
