"""A whole-slide image as DICOM, written with pydicom: one level, tiled, RGB or JPEG."""

from pathlib import Path

import numpy as np
import pydicom
import simplejpeg
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
TILE = 128


def write_dicom(
    path: Path,
    rgb: np.ndarray,
    mpp: float = 0.25,
    photometric: str = "RGB",
    series: str = "a",
    container: str = "S1",
    kind: str = "VOLUME",
) -> None:
    """Write (H, W, 3) as one instance; `photometric` YBR_FULL is what OpenSlide does not open."""
    height, width = rgb.shape[:2]
    pad = np.pad(rgb, ((0, -height % TILE), (0, -width % TILE), (0, 0)), constant_values=255)
    tiles = [
        np.ascontiguousarray(pad[y : y + TILE, x : x + TILE])
        for y in range(0, height, TILE)
        for x in range(0, width, TILE)
    ]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = WHOLE_SLIDE
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if photometric == "RGB" else JPEGBaseline8Bit
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = WHOLE_SLIDE, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    data.SeriesInstanceUID = generate_uid(entropy_srcs=[series])
    data.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame", series])
    data.Modality, data.ContainerIdentifier = "SM", container
    data.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
    data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
    data.PhotometricInterpretation = photometric
    data.NumberOfFrames, data.Rows, data.Columns = len(tiles), TILE, TILE
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.TotalPixelMatrixColumns, data.TotalPixelMatrixRows = width, height
    data.TotalPixelMatrixFocalPlanes = 1
    data.DimensionOrganizationType = "TILED_FULL"
    data.ImagedVolumeWidth, data.ImagedVolumeHeight = width * mpp / 1e3, height * mpp / 1e3
    data.ImagedVolumeDepth = 0.001
    data.FocusMethod, data.ExtendedDepthOfField = "AUTO", "NO"
    data.SpecimenLabelInImage, data.BurnedInAnnotation = "NO", "NO"
    data.LossyImageCompression = "00"
    data.VolumetricProperties = "VOLUME"
    data.InstanceNumber = 1
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1e3, mpp / 1e3], 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    path_ = Dataset()
    path_.OpticalPathIdentifier, path_.IlluminationTypeCodeSequence = "1", []
    data.OpticalPathSequence = [path_]
    data.NumberOfOpticalPaths = 1
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0.0
    data.TotalPixelMatrixOriginSequence = [origin]
    data.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    if photometric == "RGB":
        data.PixelData = b"".join(tile.tobytes() for tile in tiles)
        data["PixelData"].VR = "OB"
    else:
        frames = [
            simplejpeg.encode_jpeg(tile, quality=95, colorsubsampling="444") for tile in tiles
        ]
        data.PixelData = encapsulate(frames)
        data["PixelData"].VR = "OB"
    pydicom.dcmwrite(path, data, enforce_file_format=True)
