"""Segmentation of anybody's images: label maps, outlines and tables for a folder of images."""
