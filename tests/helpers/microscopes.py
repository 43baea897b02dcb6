"""Files as microscopes write them: CZI by Zeiss' own library, ND2 and LIF by hand.

No real file of the three formats is small enough to be kept here. `write_nd2` and `write_lif` write
what the libraries that read them ask for, and no more: they show that our code asks the libraries
rightly, not that these read the files of every microscope.
"""

import struct
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

TYPES = {bool: "bool", int: "lx_uint32", float: "double", str: "CLxStringW"}


def write_czi(path, planes, size, names, *, scenes=None, left=None, **places):
    """Write (C, H, W) uint16 planes, with a pixel of `size` µm.

    Parameters
    ----------
    scenes, left : for each plane its scene and the column that it begins at
    places : for each plane its place on an axis other than C, such as `Z=(0, 1)`
    """
    from pylibCZIrw import czi

    metres = size * 1e-6
    with czi.create_czi(str(path)) as file:
        for number, plane in enumerate(planes):
            file.write(
                np.ascontiguousarray(plane)[..., None],
                location=(left[number] if left else 0, 0),
                plane={axis: at[number] for axis, at in places.items()} or {"C": number},
                scene=scenes[number] if scenes else 0,
            )
        channels = dict(enumerate(names))
        file.write_metadata("x", channel_names=channels, scale_x=metres, scale_y=metres)


def write_nd2(path, planes, size, names):
    """Write (C, H, W) uint16 planes, with a pixel of `size` µm; None: without calibration."""
    count, height, width = planes.shape
    depth = {"uiBpcInMemory": 16, "uiBpcSignificant": 16, "eCompression": 2}
    sides = {"uiWidth": width, "uiHeight": height, "uiWidthBytes": 2 * width * count}
    spectra = {"m_ExcitationSpectrum": {"uiCount": 0}, "m_EmissionSpectrum": {"uiCount": 0}}
    channels = {
        f"a{number}": {"sDescription": name, "pFluorescentProbe": spectra}
        for number, name in enumerate(names)
    }
    picture = {
        "bCalibrated": size is not None,
        "dCalibration": size or 0.0,
        "sPicturePlanes": {"uiCount": count, "sPlane": channels},
    }
    chunks = {
        b"ND2 FILE SIGNATURE CHUNK NAME01!": b"Ver2.1".ljust(64, b"\0"),
        b"ImageAttributes!": _variant({**depth, **sides, "uiComp": count, "uiSequenceCount": 1}),
        b"ImageMetadataSeq|0!": _variant(picture),
        b"ImageDataSeq|0!": bytes(8) + np.moveaxis(planes, 0, -1).tobytes(),
        b"CustomData|AcqTimesCache!": bytes(8),
    }
    content, index = b"", b""
    for name, data in chunks.items():
        index += name + struct.pack("<QQ", len(content), len(data))
        content += _chunk(name.ljust(32 if name.startswith(b"ND2") else 4072, b"\0"), data)
    index += b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", len(content))
    Path(path).write_bytes(content + _chunk(b"ND2 FILEMAP SIGNATURE NAME 0001!", index))


def _chunk(name, data):
    return struct.pack("<IIQ", 0x0ABECEDA, len(name), len(data)) + name + data


def _variant(values):
    return f'<variant version="1.0">{_tags(values)}</variant>'.encode()


def _tags(values):
    return "".join(
        f"<{name}>{_tags(value)}</{name}>"
        if isinstance(value, dict)
        else f"<{name} runtype={quoteattr(TYPES[type(value)])} value={quoteattr(str(value))}/>"
        for name, value in values.items()
    )


def write_lif(path, planes, size, names, images=1):
    """Write (C, H, W) uint16 planes, with a pixel of `size` µm, as often as `images` says."""
    _, height, width = planes.shape
    channels = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" LUTName="{name}" '
        f'BytesInc="{2 * width * height * number}" Min="0" Max="1" Unit="" BitInc="0" '
        'NameOfMeasuredQuantity="" IsLUTInverted="0"/>'
        for number, name in enumerate(names)
    )
    sides = "".join(
        f'<DimensionDescription DimID="{number}" NumberOfElements="{count}" Origin="0" '
        f'Length="{size * 1e-6 * (count - 1)}" Unit="m" BitInc="0" BytesInc="{step}"/>'
        for number, count, step in ((1, width, 2), (2, height, 2 * width))
    )
    each = "".join(
        f'<Element Name="series {number}"><Data><Image><ImageDescription><Channels>{channels}'
        f"</Channels><Dimensions>{sides}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{planes.nbytes}" MemoryBlockID="Block_{number}"/></Element>'
        for number in range(images)
    )
    header = (
        '<LMSDataContainerHeader Version="2"><Element Name="x"><Data><Experiment Path="x"/></Data>'
        f'<Memory Size="0" MemoryBlockID="none"/><Children>{each}</Children></Element>'
        "</LMSDataContainerHeader>"
    )
    content = _text(header, "<IIBI", 5)
    for number in range(images):
        name = f"Block_{number}"
        content += _text(name, "<IIBQBI", 14, planes.nbytes, 0x2A) + planes.tobytes()
    Path(path).write_bytes(content)


def _text(text, layout, extra, *fields):
    data = text.encode("utf-16-le")
    return struct.pack(layout, 0x70, len(data) + extra, 0x2A, *fields, len(text)) + data
