"""What a slide's pixels are read from: OpenSlide, a TIFF, an image, DICOM."""
