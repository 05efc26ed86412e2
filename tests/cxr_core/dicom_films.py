"""DICOM files of radiographs, written by the standard."""

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset


def radiograph(stored: np.ndarray, **attributes: object) -> Dataset:
    """A digital radiograph of stored values, with further attributes.

    stored: grey (H, W), colour (H, W, 3) or, with NumberOfFrames, several frames (N, H, W).
    """
    header, frames = Dataset(), stored.ndim == 3 and "NumberOfFrames" in attributes
    colour = stored.ndim == 3 and not frames
    header.SOPClassUID, header.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, uid.generate_uid()
    header.Rows, header.Columns = stored.shape[1:] if frames else stored.shape[:2]
    header.SamplesPerPixel = 3 if colour else 1
    header.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        header.PlanarConfiguration = 0
    bits = stored.itemsize * 8
    header.BitsAllocated, header.BitsStored, header.HighBit = bits, bits, bits - 1
    header.PixelRepresentation = int(stored.dtype.kind == "i")
    header.PixelData = stored.tobytes()
    header["PixelData"].VR = "OW" if bits > 8 else "OB"
    for name, value in attributes.items():
        setattr(header, name, value)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return header
