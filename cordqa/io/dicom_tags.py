"""The elements that are read from a header; everything else is skipped without being parsed."""

from __future__ import annotations

from typing import Any

from pydicom.tag import BaseTag

from cordqa.io.dicom_header import PRIVATE_BLOCKS, tag_of

__all__ = ["TAGS"]

_PUBLIC = """
SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID StudyDate SeriesDate AcquisitionDate
ContentDate AcquisitionDateTime StudyTime SeriesTime AcquisitionTime ContentTime Modality
Manufacturer StationName ManufacturerModelName PatientID ScanningSequence SequenceVariant
ScanOptions MRAcquisitionType SliceThickness RepetitionTime EchoTime InversionTime ImagingFrequency
ImagedNucleus MagneticFieldStrength EchoTrainLength DeviceSerialNumber SoftwareVersions FlipAngle
EchoPulseSequence InversionRecovery MagnetizationTransfer EffectiveEchoTime DiffusionBValue
DiffusionGradientOrientation DiffusionGradientDirectionSequence DiffusionDirectionality
InversionTimes ComplexImageComponent StudyInstanceUID SeriesInstanceUID
SeriesNumber AcquisitionNumber InstanceNumber ImagePositionPatient ImageOrientationPatient
TemporalPositionIdentifier SamplesPerPixel PhotometricInterpretation NumberOfFrames Rows Columns
PixelSpacing BitsAllocated BitsStored HighBit PixelRepresentation RescaleIntercept RescaleSlope
RescaleType LossyImageCompression RealWorldValueMappingSequence SharedFunctionalGroupsSequence
PerFrameFunctionalGroupsSequence
"""
_PRIVATE = {
    0x0019: (0x0C, 0x0D, 0x0E, 0xBB, 0xBC, 0xBD),
    0x0043: (0x2F, 0x39),
    0x0029: (0x10,),  # Siemens' own header, for what it did not put into elements
    0x2001: (0x03, 0x04),
    0x2005: (0x0D, 0x0E, 0x09, 0x0A, 0x0F, 0xB0, 0xB1, 0xB2),
}
TAGS: list[Any] = [
    *(tag_of(keyword) for keyword in _PUBLIC.split()),
    *(BaseTag(g << 16 | b) for g in _PRIVATE for b in PRIVATE_BLOCKS),
    *(
        BaseTag(g << 16 | b << 8 | e)
        for g, elements in _PRIVATE.items()
        for b in PRIVATE_BLOCKS
        for e in elements
    ),
]
