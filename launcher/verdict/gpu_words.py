"""What a GPU, its driver or what joins GPUs says when it fails: words that are of the node, and words that a program can bring about too.

CUDA's are those of cudaError_t (CUDA Runtime API): ECC 214, NVLink 220, system not ready 802; and of both kinds the hardware stack 714, a
launch failure 719 and a contained error 721, "certain types of invalid accesses of peer GPU memory" or "certain classes of hardware
errors". HIP has the same ones.

The driver's are in the kernel's log, which some sites copy into a job's. Of NVIDIA's catalogue, which goes up to 172
(https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html), those whose immediate action no program can take: RESET_GPU,
RESTART_BM (79), RESTART_VM (151), CHECK_MECHANICALS (54), the workflows of ECC (48) and NVLink (74, and 144 to 150 unless the line says
Nonfatal); 94, memory that failed under one program; 167, 169, 171 and 172, which have no action yet and are a PCIe timeout, a controller
that halted and the two kinds of 48; and 154, with which the driver says itself that the GPU or the node has to be reset. Of those
RESET_GPU, 46 and 109 are of both kinds: a kernel that does not end is enough. What it has a program restarted for is the program's (13,
31, 43, 69), as is 137, and what it has ignored ends nothing (63, 92, 121, 157); 45 only follows something else. NVSwitch has numbers of
its own, and says Fatal (NVIDIA Fabric Manager User Guide).

ROCm's runtime has two lines (ROCR-Runtime, core/runtime/runtime.cpp, HwExceptionHandler and VMFaultHandler): the reason says whose fault it
is. ECC is the GPU's; a hang is of both kinds; a page that is not there, or may not be written, is the program's, and so are
HSA_STATUS_ERROR_MEMORY_APERTURE_VIOLATION and an unknown reason.
"""

from __future__ import annotations

import re

_XID = r"NVRM: Xid \([^)]{1,60}\): "
_XIDS = "48|54|62|64|74|79|94|95|110|119|120|136|140|143|151|155|156|158|167|169|171|172"

OF_THE_NODE = re.compile(
    r"uncorrectable (ECC|NVLink|NVLINK) error|hipErrorECCNotCorrectable|system not yet initialized"
    r"|fallen off the bus|GPU is lost|device lost from bus"
    rf"|{_XID}({_XIDS})\b"
    rf"|{_XID}(14[4-9]|150)\b(?!.{{0,80}}\bNonfatal\b)"
    rf"|{_XID}154\b.{{0,100}} to 0x[0-9a-fA-F]+ \((?!None)"
    r"|\bSXid \([^)]{1,60}\): \d{1,9}, Fatal\b"
    r"|HW Exception by GPU node-\d{1,9}\b.{0,80}\breason ?: ?ECC"
    r"|Memory access fault by GPU node-\d{1,9}\b.{0,200}\bReason: ([SD]RAM )?ECC failure"
    r"|Got async event : (local catastrophic|device fatal)"
)
OF_BOTH = re.compile(
    r"[Uu]nspecified launch failure|CUDA error: hardware stack error|peer GPU memory over nvlink or a hardware error"
    rf"|{_XID}(46|109)\b"
    r"|HW Exception by GPU node-\d{1,9}\b"
    r"|Memory access fault by GPU node-\d{1,9}\b.{0,200}\bReason: Generic hang recovery"
)
