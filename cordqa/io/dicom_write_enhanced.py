"""Enhanced MR images: all frames of a set in one multi-frame object."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from cordqa.io.dicom_write_diffusion import add_diffusion_group
from cordqa.io.dicom_write_vendor import MHZ_PER_TESLA, VendorStyle, add_scale, ds_text, store
from cordqa.records import Acquisition, ImageSet, Part

__all__ = ["add_enhanced_frames"]

#: Parameter that may vary between frames: its field, the attribute, the sequence that holds it.
_DIMENSIONS = (
    ("inversion_time_s", 0x00189079, 0x00189115),
    ("echo_time_s", 0x00189082, 0x00189114),
    ("flip_angle_deg", 0x00181314, 0x00189112),
    ("b_value_s_per_mm2", 0x00189087, 0x00189117),
)
_FRAME_CONTENT = 0x00209111
_PARTS: Mapping[Part, str] = {
    Part.MAGNITUDE: "MAGNITUDE",
    Part.PHASE: "PHASE",
    Part.REAL: "REAL",
    Part.IMAGINARY: "IMAGINARY",
}
_FRAME_TYPE = ["ORIGINAL", "PRIMARY", "OTHER", "NONE"]


def add_enhanced_frames(
    dataset: Dataset,
    image_set: ImageSet,
    style: VendorStyle,
    *,
    orientation: list[str],
    positions: list[list[str]],
) -> None:
    """Turn a data set with the common modules into an Enhanced MR image.

    Frames run over the images, and within each image over the slices.

    Parameters
    ----------
    dataset : Dataset
        Changed in place.
    image_set : ImageSet
    style : VendorStyle
    orientation : list of str
        Image Orientation (Patient).
    positions : list of list of str
        Image Position (Patient) of each slice.
    """
    dataset.ImageType = _FRAME_TYPE
    dataset.NumberOfFrames = str(image_set.data.shape[0] * image_set.data.shape[1])
    _add_description(dataset, image_set.part)
    _add_module(dataset, image_set.acquisitions[0])
    _add_dimensions(dataset, image_set)
    dataset.SharedFunctionalGroupsSequence = Sequence([_shared_groups(image_set, style, orientation)])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(list(_frames(image_set, style, positions)))
    planes = zip(image_set.data, image_set.acquisitions, strict=True)
    dataset.PixelData = np.stack([store(image, header, style) for image, header in planes]).tobytes()


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _one(**attributes: Any) -> Sequence:
    return Sequence([_item(**attributes)])


def _add_description(target: Dataset, part: Part) -> None:
    """Add the MR image description, which the whole image and each frame type carry."""
    target.PixelPresentation = "MONOCHROME"
    target.VolumetricProperties = "VOLUME"
    target.VolumeBasedCalculationTechnique = "NONE"
    target.ComplexImageComponent = _PARTS[part]
    target.AcquisitionContrast = "UNKNOWN"


def _add_module(dataset: Dataset, first: Acquisition) -> None:
    """Add the Enhanced MR Image and MR Pulse Sequence modules."""
    recovery = first.sequence == "inversion recovery"
    gradient = first.sequence == "gradient echo"
    values = {
        "AcquisitionContextSequence": Sequence([]),
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "PresentationLUTShape": "IDENTITY",
        "ContentQualification": "RESEARCH",
        "ApplicableSafetyStandardAgency": "IEC",
        "ResonantNucleus": "1H",
        "KSpaceFiltering": "NONE",
        "MagneticFieldStrength": _known(first.field_strength_T),
        "AcquisitionNumber": "1",
        "AcquisitionDuration": 0.0,
        "PulseSequenceName": {"inversion recovery": "ir", "gradient echo": "gre"}.get(first.sequence, "se"),
        "MRAcquisitionType": "2D",
        "EchoPulseSequence": "GRADIENT" if gradient else "SPIN",
        "MultipleSpinEcho": "YES" if first.echo_train_length > 1 else "NO",
        "MultiPlanarExcitation": "NO",
        "PhaseContrast": "NO",
        "TimeOfFlightContrast": "NO",
        "SteadyStatePulseSequence": "LONGITUDINAL" if gradient else "NONE",
        "EchoPlanarPulseSequence": "NO",
        "SaturationRecovery": "NO",
        "SpectrallySelectedSuppression": "NONE",
        "OversamplingPhase": "NONE",
        "GeometryOfKSpaceTraversal": "RECTILINEAR",
        "RectilinearPhaseEncodeReordering": "LINEAR",
        "SegmentedKSpaceTraversal": "SINGLE",
        "NumberOfKSpaceTrajectories": 1,
        "InversionRecovery": "YES" if recovery else "NO",
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)


def _known(value: float) -> str:
    return ds_text(value) if math.isfinite(value) else ""


def _varying(image_set: ImageSet) -> list[tuple[str, int, int]]:
    return [entry for entry in _DIMENSIONS if image_set.varies(entry[0])]


def _add_dimensions(dataset: Dataset, image_set: ImageSet) -> None:
    """Say by what the frames are ordered: the slice, then whatever varies."""
    uid = str(generate_uid(entropy_srcs=[dataset.SOPInstanceUID, "dimensions"]))
    dataset.DimensionOrganizationSequence = _one(DimensionOrganizationUID=uid)
    pointers = [(0x00209056, _FRAME_CONTENT), (0x00209057, _FRAME_CONTENT)]
    pointers += [(attribute, group) for _, attribute, group in _varying(image_set)]
    dataset.DimensionIndexSequence = Sequence(
        [
            _item(DimensionOrganizationUID=uid, DimensionIndexPointer=attribute, FunctionalGroupPointer=group)
            for attribute, group in pointers
        ]
    )


def _shared_groups(image_set: ImageSet, style: VendorStyle, orientation: list[str]) -> Dataset:
    low, high = style.stored_range
    _, rows, columns = image_set.data.shape[1:]
    between_slices, between_rows, between_columns = image_set.spacing_mm
    thickness = image_set.acquisitions[0].slice_thickness_mm
    field = image_set.acquisitions[0].field_strength_T
    region = _one(CodeValue="T-A0100", CodingSchemeDesignator="SRT", CodeMeaning="Brain")
    return _item(
        PixelMeasuresSequence=_one(
            PixelSpacing=[ds_text(between_rows), ds_text(between_columns)],
            SliceThickness=ds_text(thickness if math.isfinite(thickness) else between_slices),
            SpacingBetweenSlices=ds_text(between_slices),
        ),
        PlaneOrientationSequence=_one(ImageOrientationPatient=orientation),
        FrameAnatomySequence=_one(FrameLaterality="U", AnatomicRegionSequence=region),
        FrameVOILUTSequence=_one(WindowCenter=ds_text((low + high) / 2), WindowWidth=ds_text(high - low)),
        MRFOVGeometrySequence=_one(
            InPlanePhaseEncodingDirection="ROW",
            MRAcquisitionFrequencyEncodingSteps=columns,
            MRAcquisitionPhaseEncodingStepsInPlane=rows,
            MRAcquisitionPhaseEncodingStepsOutOfPlane=1,
            PercentSampling="100",
            PercentPhaseFieldOfView="100",
        ),
        MRAveragesSequence=_one(NumberOfAverages="1"),
        MRImagingModifierSequence=_one(
            MagnetizationTransfer="NONE",
            BloodSignalNulling="NO",
            Tagging="NONE",
            TransmitterFrequency=MHZ_PER_TESLA * field if math.isfinite(field) else None,
            PixelBandwidth="130",
        ),
        MRReceiveCoilSequence=_one(
            ReceiveCoilName="HEAD",
            ReceiveCoilManufacturerName="",
            ReceiveCoilType="MULTICOIL",
            QuadratureReceiveCoil="NO",
        ),
        MRTransmitCoilSequence=_one(
            TransmitCoilName="BODY", TransmitCoilManufacturerName="", TransmitCoilType="BODY"
        ),
    )


def _frames(image_set: ImageSet, style: VendorStyle, positions: list[list[str]]) -> Iterator[Dataset]:
    varying = [name for name, _, _ in _varying(image_set)]
    # Index 1 for the smallest value of each parameter that varies.
    ranks = [
        np.unique(np.nan_to_num(image_set.values(name), nan=-1.0), return_inverse=True)[1] + 1
        for name in varying
    ]
    for image, acquisition in enumerate(image_set.acquisitions):
        for number, position in enumerate(positions, start=1):
            index = [1, number, *(int(rank[image]) for rank in ranks)]
            yield _frame(image_set.part, acquisition, style, position, index)


def _frame(
    part: Part, acquisition: Acquisition, style: VendorStyle, position: list[str], index: list[int]
) -> Dataset:
    frame_type = _item(FrameType=_FRAME_TYPE)
    _add_description(frame_type, part)
    frame = _item(
        FrameContentSequence=_one(
            StackID="1", InStackPositionNumber=index[1], DimensionIndexValues=index, FrameAcquisitionNumber=1
        ),
        PlanePositionSequence=_one(ImagePositionPatient=position),
        MRImageFrameTypeSequence=Sequence([frame_type]),
        MRTimingAndRelatedParametersSequence=Sequence([_timing(acquisition)]),
        MRModifierSequence=Sequence([_modifier(acquisition)]),
    )
    if math.isfinite(acquisition.echo_time_s):
        frame.MREchoSequence = _one(EffectiveEchoTime=round(acquisition.echo_time_s * 1000, 6))
    add_diffusion_group(frame, acquisition)
    add_scale(frame, style, part, acquisition, enhanced=True)
    return frame


def _timing(acquisition: Acquisition) -> Dataset:
    gradient = acquisition.sequence == "gradient echo"
    timing = _item(
        EchoTrainLength=str(max(acquisition.echo_train_length, 1)),
        RFEchoTrainLength=0 if gradient else max(acquisition.echo_train_length, 1),
        GradientEchoTrainLength=1 if gradient else 0,
        OperatingModeSequence=_one(OperatingModeType="RF", OperatingMode="IEC_NORMAL"),
    )
    if math.isfinite(acquisition.repetition_time_s):
        timing.RepetitionTime = ds_text(round(acquisition.repetition_time_s * 1000, 6))
    if math.isfinite(acquisition.flip_angle_deg):
        timing.FlipAngle = ds_text(acquisition.flip_angle_deg)
    return timing


def _modifier(acquisition: Acquisition) -> Dataset:
    recovery = math.isfinite(acquisition.inversion_time_s)
    modifier = _item(
        InversionRecovery="YES" if recovery else "NO",
        FlowCompensation="NONE",
        Spoiling="RF" if acquisition.sequence == "gradient echo" else "NONE",
        T2Preparation="NO",
        SpectrallySelectedExcitation="NONE",
        SpatialPresaturation="NONE",
        PartialFourier="NO",
        ParallelAcquisition="NO",
    )
    if recovery:
        modifier.InversionTimes = [round(acquisition.inversion_time_s * 1000, 6)]
    return modifier
