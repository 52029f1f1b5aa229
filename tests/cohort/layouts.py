"""Miniatures of published data sets, in their exact folders and names."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from tests.cohort.small import AFFINE, brain

from gyri.cohort.nifti import write_volume


def write_pair(stem: Path, volume: np.ndarray, *, dtype: str = ">i2", spacing: float = 8.0) -> None:
    """Write an Analyze 7.5 pair as OASIS does: big-endian, a trailing axis, no orientation."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stored = np.rint(volume).astype(dtype)
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_dtype(stored.dtype)
    header.set_data_shape((*stored.shape, 1))
    header["pixdim"][1:4] = spacing
    Path(f"{stem}.hdr").write_bytes(header.binaryblock)
    Path(f"{stem}.img").write_bytes(stored.tobytes(order="F"))


def write_nifti(path: Path, volume: np.ndarray, descrip: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, np.rint(volume).astype(np.int16), AFFINE, descrip=descrip)


def text(root: Path) -> str:
    """Return all that a data set says: names, text files, headers of its volumes."""
    said = []
    for path in sorted(root.rglob("*")):
        said.append(str(path.relative_to(root)))
        if path.is_file():
            content = (
                nib.load(path).header.binaryblock if ".nii" in path.name else path.read_bytes()
            )
            said.append(content.decode("latin-1"))
    return "\n".join(said)


OASIS1_HEADING = "ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"


def write_oasis1_discs(root: Path, kinds: tuple[str, ...] = ("masked", "unmasked", "raw")) -> None:
    """Two people on two discs, one of them scanned twice."""
    lines = [OASIS1_HEADING]
    for number, (disc, session) in enumerate(
        [(1, "OAS1_0001_MR1"), (2, "OAS1_0061_MR1"), (2, "OAS1_0061_MR2")]
    ):
        folder = root / f"disc{disc}" / session
        atlas = folder / "PROCESSED" / "MPRAGE" / "T88_111" / f"{session}_mpr_n4_anon_111_t88"
        if "unmasked" in kinds:
            write_pair(Path(f"{atlas}_gfc"), brain(number) + 7)
        if "masked" in kinds:
            write_pair(Path(f"{atlas}_masked_gfc"), brain(number))
            tissue = np.clip(brain(number) // 60, 0, 3)
            name = f"{session}_mpr_n4_anon_111_t88_masked_gfc_fseg"
            write_pair(folder / "FSL_SEG" / name, tissue, dtype=">u1")
        if "raw" in kinds:
            for run in range(1, 4):
                raw = brain(number) + np.random.default_rng(run).normal(0, 5, brain(0).shape) + 50
                write_pair(folder / "RAW" / f"{session}_mpr-{run}_anon", raw)
        (folder / f"{session}.txt").write_text("SESSION ID: Jane Roe")
        lines.append(f"{session},F,R,{70 + number},2,3,29,0,1344,0.743,1.306,N/A")
    (root / "oasis_cross-sectional.csv").write_text("\n".join(lines) + "\n")


def write_oasis2(root: Path, *, heading: str = "") -> None:
    """Two people over two parts, one with two visits; the table as it was once exported."""
    heading = heading or (
        "Subject ID;MRI ID;Group;Visit;MR Delay;M/F;Hand;Age;EDUC;SES;MMSE;CDR;eTIV;nWBV;ASF"
    )
    rows = [
        "OAS2_0001;OAS2_0001_MR1;Nondemented;1;0;M;R;87;14;2;27;0;1987;0,696;0,883",
        "OAS2_0001;OAS2_0001_MR2;Nondemented;2;457;M;R;88;14;2;30;0;2004;0,681;0,876",
        "OAS2_0100;OAS2_0100_MR1;Converted;1;0;F;R;76;12;;23;0,5;1678;0,736;1,046",
    ]
    root.mkdir(parents=True)
    (root / "oasis_longitudinal_demographic.csv").write_bytes("\r".join([heading, *rows]).encode())
    for part, session in ((1, "OAS2_0001_MR1"), (1, "OAS2_0001_MR2"), (2, "OAS2_0100_MR1")):
        for run in (1, 2):
            stem = root / f"OAS2_RAW_PART{part}" / session / "RAW" / f"mpr-{run}.nifti"
            write_pair(stem, brain(hash_of(session)) + 40)


def hash_of(name: str) -> int:
    """Return a small number that is the same every time."""
    return sum(map(ord, name))


def write_oasis3(root: Path) -> None:
    scans = {
        "OAS30001_MR_d0129/anat2/NIFTI/sub-OAS30001_sess-d0129_T1w": 1,
        "OAS30001_MR_d0129/anat3/NIFTI/sub-OAS30001_sess-d0129_T2w": 2,
        "OAS30001_MR_d0757/anat1/NIFTI/sub-OAS30001_ses-d0757_run-01_T1w": 3,
        "OAS30001_MR_d0757/anat2/NIFTI/sub-OAS30001_ses-d0757_run-02_T1w": 4,
        "OAS30001_MR_d0757/func1/NIFTI/sub-OAS30001_ses-d0757_task-rest_run-01_bold": 5,
        "OAS30001_AV45_d2430/pet1/NIFTI/sub-OAS30001_ses-d2430_acq-AV45_pet": 6,
        "OAS30002_MR_d0371/anat1/sub-OAS30002_ses-d0371_T1w": 7,
    }
    for name, seed in scans.items():
        write_nifti(root / f"{name}.nii.gz", brain(seed))
    bids_folder = root / "OAS30001_MR_d0129" / "anat2" / "BIDS"
    bids_folder.mkdir()
    (bids_folder / "sub-OAS30001_sess-d0129_T1w.json").write_text(
        '{"Manufacturer": "Siemens", "ManufacturersModelName": "TrioTim", '
        '"DeviceSerialNumber": "35177", "AcquisitionDateTime": "2009-03-04"}'
    )
    tables = root / "OASIS3_data_files"
    tables.mkdir()
    (tables / "OASIS3_demographics.csv").write_text(
        "OASISID,Subject_accession,AgeatEntry,AgeatDeath,GENDER,EDUC,SES,racecode,race,HAND,APOE\n"
        "OAS30001,CENTRAL_1,65.15,,2,12,2,5,White,R,23\n"
        "OAS30002,CENTRAL_2,67.25,,1,18,1,5,White,R,34\n"
        "OAS30003,CENTRAL_3,58.80,,2,16,1,5,White,L,33\n"
    )
    (tables / "OASIS3_UDSb4_cdr.csv").write_text(
        "OASISID,OASIS_session_label,days_to_visit,age at visit,MMSE,memory,CDRSUM,CDRTOT,dx1\n"
        "OAS30001,OAS30001_UDSb4_d0000,0000,65.15,28,0,0,0,Cognitively normal\n"
        "OAS30001,OAS30001_UDSb4_d0722,722,67.13,26,0.5,1,0.5,uncertain dementia\n"
        "OAS30002,OAS30002_UDSb4_d2000,2000,72.7,22,1,5,1,AD Dementia\n"
        "OAS30753,OAS30753_UDSb4_d-39520,-39520,-47.25,29,0,0,0,Cognitively normal\n"
    )


def write_oasis4(root: Path) -> None:
    for person, day in (("OAS40001", "d0000"), ("OAS40002", "d3030")):
        folder = root / f"{person}_MR_{day}" / "anat1" / "NIFTI"
        write_nifti(folder / f"sub-{person}_sess-{day}_T1w.nii.gz", brain(hash_of(person)))
        write_nifti(folder / f"sub-{person}_sess-{day}_swi.nii.gz", brain(hash_of(person)))
    (root / "OASIS4_data_clinical.csv").write_text(
        "oasis_id,sex,race,final_dx\nOAS40001,1,1,MCI\nOAS40002,2,2,Cognitively Normal\n"
    )
    (root / "OASIS4_data_imaging.csv").write_text(
        "oasis_id,imaging_id,image_age\nOAS40001,OAS40001_MR_d0000,70.5\n"
        "OAS40002,OAS40002_MR_d3030,81\n"
    )
    (root / "OASIS4_data_CDR.csv").write_text(
        "oasis_id,cdr_id,cdr\nOAS40001,OAS40001_CDR_d0010,0.5\nOAS40002,OAS40002_CDR_d0001,0\n"
    )


def write_brats(
    folder: Path, case: str, labels: tuple[int, ...] = (1, 2, 3), *, old: bool = False
) -> None:
    """Write one case; the labels lie one a slab."""
    seed = hash_of(case)
    endings = ("_t1", "_t1ce", "_t2", "_flair") if old else ("-t1n", "-t1c", "-t2w", "-t2f")
    for number, ending in enumerate(endings):
        write_nifti(folder / case / f"{case}{ending}.nii.gz", brain(seed + number))
    seg = np.zeros(brain(0).shape)
    for place, label in enumerate(labels):
        seg[5 + place, 8:12, 8:12] = label
    write_nifti(folder / case / f"{case}{'_' if old else '-'}seg.nii.gz", seg)


def write_adni(root: Path) -> None:
    """Two people; one with two visits and two images at the second, and a mask."""
    full, plain = "MPR__GradWarp__B1_Correction__N3__Scaled", "MPR__GradWarp"
    scans = [
        ("002_S_0295", full, "2006-04-18_08_20_30.0", "S13408", "I45107"),
        ("002_S_0295", plain, "2006-11-02_08_16_44.0", "S21856", "I40966"),
        ("002_S_0295", full, "2006-11-02_08_16_44.0", "S21856", "I40967"),
        ("002_S_0295", "MPR__GradWarp__B1_Correction__Mask", "2006-11-02_08_16_44.0", "S21856",
         "I40968"),
        ("005_S_0546", full, "2006-05-01_10_00_00.0", "S13500", "I50001"),
    ]  # fmt: skip
    for person, series, date, number, image in scans:
        name = f"ADNI_{person}_MR_{series}_Br_20070219173850420_{number}_{image}.nii"
        path = root / "ADNI" / person / series / date / number / name
        write_nifti(path, brain(hash_of(image)), descrip="Roe^Jane 1931-02-03")
    (root / "ADNI1_Screening.csv").write_text(
        '"Image Data ID","Subject","Group","Sex","Age","Visit","Modality","Description","Type",'
        '"Acq Date","Format","Downloaded"\n'
        '"I45107","002_S_0295","CN","M","85","sc","MRI","MPR","Processed","4/18/2006","NiFTI",""\n'
        '"I40966","002_S_0295","CN","M","85","m06","MRI","MPR","Processed","11/02/2006","NiFTI",""\n'
        '"I40967","002_S_0295","CN","M","85","m06","MRI","MPR","Processed","11/02/2006","NiFTI",""\n'
        '"I50001","005_S_0546","MCI","F","72","sc","MRI","MPR","Processed","5/01/2006","NiFTI",""\n'
    )


def write_ncanda(root: Path) -> None:
    visits = [("NCANDA_S00033", "baseline"), ("NCANDA_S00033", "followup_1y"),
              ("NCANDA_S00034", "baseline")]  # fmt: skip
    for person, visit in visits:
        folder = root / "cases" / person / "standard" / visit / "structural"
        seed = hash_of(person + visit)
        write_nifti(folder / "native" / "t1.nii.gz", brain(seed) + 20)
        write_nifti(folder / "native" / "t2.nii.gz", brain(seed + 1) + 20)
        write_nifti(folder / "stripped" / "t1_brain.nii.gz", brain(seed))
    table = root / "summaries" / "redcap" / "demographics.csv"
    table.parent.mkdir(parents=True)
    table.write_text(
        "subject,arm,visit,site,sex,visit_age,mri_xnat_sid,scanner\n"
        "NCANDA_S00033,standard,baseline,sri,F,15.4,NCANDA_S00033,ge\n"
        "NCANDA_S00033,standard,followup_1y,sri,F,16.5,NCANDA_S00033,ge\n"
        "NCANDA_S00033,recovery,baseline,sri,F,15.5,NCANDA_S00033,ge\n"
        "NCANDA_S00034,standard,baseline,duke,M,,NCANDA_S00034,ge\n"
    )
