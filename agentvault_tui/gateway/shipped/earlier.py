"""Digests of service files that earlier versions shipped, to renew unchanged copies.

If a file in the home directory still has the text of an earlier version, the first
start after an upgrade replaces it by the file of this version.
"""

from __future__ import annotations

from typing import Final

from agentvault_tui.gateway.shipped import shipped_file
from agentvault_tui.model import sha256_hex

TEXTS: Final[dict[str, tuple[str, ...]]] = {
    "github": (
        "4ec5cc5c2ca36a2f0d689c9524ced059a851d77879f79ae19c668af5948029d7",
        "28609f36bd3f39cbe84238cef234fe1e1820838761650635eb967e1a297400fe",
        "9af6a9543b8fd73d255e014db99812098126ff4d17f0b95f9b867f6e83155189",
        "4ae39a74bb35e6ec38fb74c641ecd1733ddacd65c8a9310ba7a89f3897d522c9",
        "05f291302a5d829c19be55214bc012efb5c2678864855612d4be7dd0098c0bb2",
        "e4f450d37c9223a8d5f517a8e5256f4bf221fa013346772de48540a558ead92e",
        "da99993e362020138e567a0f172a771bdf81bbf2a81d7ff5222ffdbbc79f2d11",
        "1c25e35ad9792bae75b9517e83ce27de04b64fd58d79c3ee1a54f2955ad32b13",
        "da5037c8d338cb34c7e1c40647a10b3eb75d0cb35196a5346702ba8fef16d13e",
    ),
    "github-git": (
        "4174d2be83ca52e4ed662f831c62ba6e771febf95680f73a43e8d2e4fedc4958",
        "10dd84978fda09ddcd6e657e5b67a190f8b1da4f1403f86d05eaa5e6451bfb45",
        "4065405dbc68b2903715f276032f5f035bddf7caa5e722d1ce12203152ab4c9a",
        "470bfc2ecc3a63e648d088e831dd80e297e40e6bf45b858bee4e858f158ea834",
        "1360de63ca9116e773ce663a4993d107f33be14a303579d4cc2b2d7c2a9c40f8",
    ),
    "gmail": (
        "8c03a6d11089c4f6c15ce61fa97116845087ffe8618bf1942adcf7baee606479",
        "88cc0fcf411a08f9a7e12c0c82b474542d2c30c594402f2e8a60bd7acb0e9ff4",
        "df7c5ba00e0058a3266021265c27c7480bc130d0f8fc474222226f1b6823a0d0",
        "dd56800a7756ca86ac99e0786ad8b8b315788b16c455060c3db89255eea26910",
        "f6414ab6f99346a2cf2471412ea2ac4de9f4fd7e3016b744915d94073ce0ded7",
        "0386357271ec83baa20bd064a2099e8cfbf69ee40c63224bd05d79607f0d040d",
    ),
    "google-calendar": (
        "b181eb2e3e2b0cd50ea4095c908cccc5a1ecf95836e2cb0110d53769f21068d4",
        "e4a5246dec0011d5949105e907c46e44a4aec73e00c9b755caea04f186f0046c",
        "2ded0034d5c58022340a21cdeebabc653a63e7c1c03727c87c2c1f7b2b1e2739",
        "77529139aa90b4661e6e26cd8c711e9587b72b0be4d15c5054564181901acab0",
        "38afbd92cef238d0753b6cc8ddf7ca326c7eecdd581fc17fe12ba0cdf7817fce",
    ),
    "slack": (
        "4b02ba33d0843790eb0bf8ee470007c2a9bab58f26e3345d6f450927cc966797",
        "25126fe3827b3981a6658cd4c32fee7f72e01c77714ac4342db21515b6c65ca2",
    ),
    "stripe": (
        "236330a5f73b5e9095d2a0ed87e37d2c18097a7cf04baeeba48c58a404bd0e35",
        "0ffbfe241236ca1d733e75128481ef7bf2e7c5a7817d6201d2b1477fb4f01aa0",
        "d68ae428ccbdff10416ed49954b4e9e614a6a11ba3a2a18dea3137ea362a6804",
        "3fb7b838af08b001610a7b5db136892da74910fdcf4e41d5cc53d293029ef795",
        "4720457155178f5fb49faf9f0aa391ab8157cf1730c0e808a7c72cd82c49ca9f",
        "40b1cbfee572524ce7089a22303533d4561b1fe5709a427e8f416bb53fe4c020",
    ),
    "workspace": (
        "6afe503c6e030a5d94e16e0d300201ac925fb21ff5bf9681cfb0368943043f8e",
        "2c6940b2e42a5f6702b5de7aa0602db96b22f10cbc7aefff805ed7ed6dd9c2d4",
    ),
}
"""SHA-256 of each text that a file has had, by its name; the last is this version's."""


def successor(text: str) -> str | None:
    """Return this version's file in the place of *text*.

    Args:
        text: of a service file.

    Returns:
        a text; None where *text* is not one that an earlier version shipped.
    """
    sha256 = sha256_hex(text)
    for name, texts in TEXTS.items():
        if sha256 in texts[:-1]:
            return shipped_file(name, None)
    return None
