"""The files of Debian's installation guide in 19 languages, as plain text: size in bytes and SHA-256."""

GUIDES: dict[str, tuple[int, str]] = {
    "ca/install.ca.txt.gz": (136_045, "89c36cebb4ce2ece506a249f8f118d73e5d7c931e7da84d76400e14551efe49b"),
    "cs/install.cs.txt.gz": (141_993, "063f51fa7220cf3740dc8ad18ac77968de1448fece56f964c7e2b4208304f47e"),
    "da/install.da.txt.gz": (130_165, "13ccdfe36f2b69f9e2404078369df4199d36e28e330ffc10523de8cb26ee3ff1"),
    "de/install.de.txt.gz": (149_081, "3fa32e40745cbf0dc4320837e571f41d54b9b8b252e6b6cf9fc4095b5d4221e3"),
    "el/install.el.txt.gz": (183_100, "c9b0f816c87ee491b1887ff5f56f68bc5363f4d5965c0ecf0b9d0655bbdfdd54"),
    "en/install.en.txt.gz": (124_954, "788b05c6f17cb8841aacce2ec994a4d235c254e10a72c00b07609f03e72f632b"),
    "es/install.es.txt.gz": (136_405, "462dfae38fd66c666add036f24f5604507373aa22959e1ec73b6c361bf39d238"),
    "fr/install.fr.txt.gz": (130_587, "7880ad854e047a5053fa7325000aafe11f13ea7a93b5f5cc4a99acfb343c6ee2"),
    "id/install.id.txt.gz": (122_296, "67761e6974e96569bc4719746fef470b191a4d8618118ea26ee1dcd026284619"),
    "it/install.it.txt.gz": (133_658, "8e89e24efb0fd000a65cf4db0398f66dfa8132ee3dae8c9d2354e8dc87363271"),
    "ja/install.ja.txt.gz": (143_818, "889e22d6059d4decc7c94aa8e5ce29f940d91f2ad9d8a1849ca3a18999a048cd"),
    "ko/install.ko.txt.gz": (129_479, "fabe87aff34ae64d8f53185b2b366d42613ee873cfa5eee585ed79efe1edca71"),
    "nl/install.nl.txt.gz": (147_164, "35f4e1403ca59daf5ec9b7854c5ee151dc947f4aa07619bd9fd68284bb61f146"),
    "pt/install.pt.txt.gz": (133_837, "2043c0ce1e570dc06d21ce06a572f29af4639a5e7f30754b10ab27329957a47a"),
    "ro/install.ro.txt.gz": (144_465, "44286cd88659efb9993839f999f4f2395e6bea0537e3b948fd5619154566ea9e"),
    "ru/install.ru.txt.gz": (141_252, "4424797f74dacf9e09526ea0c74d36af7d161bf828ceccf021d5e27dab48733e"),
    "sv/install.sv.txt.gz": (135_912, "4609f58aae4b13c2591a0254bdab711101b01a7c9da51e13c40d0e438cc0a8e0"),
    "vi/install.vi.txt.gz": (141_955, "d176e025eae08168145b37cc729ac2f1ff5c8519ab012fd7e9efef4ae75de8b2"),
    "zh_CN/install.zh_CN.txt.gz": (127_458, "56897a154d5e013850e9d2d735961effd511ece53e99e7527370abf033f69ccd"),
}
