"""Judges the trained model by the digits that training never saw."""

import argparse

import mlflow
import numpy


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of the model that train.py logged")
    parser.add_argument("--data", required=True, help="the file that prepare.py wrote")
    args = parser.parse_args()

    data = numpy.load(args.data)
    model = mlflow.sklearn.load_model(args.model)
    right = model.predict(data["x_test"]) == data["y_test"]
    print(f"{int(right.sum())} of {len(right)} digits read right")
    mlflow.log_metrics({"acc": float(right.mean()), "errors": int((~right).sum())})


if __name__ == "__main__":
    main()
