"""Train with Cellpose's own functions: folder with train and valid, weights, folder to save in."""

import sys

from cellpose import io, models, train

folder, pretrained, save_path = sys.argv[1:]
data = io.load_train_test_data(f"{folder}/train", f"{folder}/valid", mask_filter="_masks")
images, labels, _, test_images, test_labels, _ = data
train.train_seg(
    models.CellposeModel(pretrained_model=pretrained).net,
    train_data=images,
    train_labels=labels,
    test_data=test_images,
    test_labels=test_labels,
    channels=[0, 0],
    n_epochs=1,
    save_path=save_path,
)
