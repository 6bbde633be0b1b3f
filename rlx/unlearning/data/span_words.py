"""Words by which the parts of an answer are told apart: function words, words that name an attribute, units of text."""

from __future__ import annotations

FUNCTION_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "english": """
            a about above after again all almost already also always am an and any are around as at be because been
            before being between both but by can could currently did do does during each either else ever every few
            first for former from further had has have he her here hers herself him himself his how however i if in
            including indeed into is it its itself just last later least let like likely many may me might more most
            mostly much must my near no not now of officially often on once one only onto or other our out over own
            per please presently primarily recently she should since so some still such than that the their them
            themselves then there these they this those though through thus to today together too toward towards
            under until up upon us usually very via was we well were what when where whether which while who whom
            whose why will with within without would yes you your mr mrs ms miss dr sir madam sure ok okay
        """,
        "german": """
            aber alle als also am an auch auf aus bei beim bis da damit dann das dass dem den denn der des die dies
            diese dieser dieses doch durch ein eine einem einen einer eines er es etwa euch für gegen hat hatte
            hatten haben herr herrn frau hier ich ihm ihn ihr ihre ihrem ihren ihrer ihres im immer in ins ist ja
            jetzt kein keine man mein meine mit nach nein nicht noch nun nur ob oder ohne schon sehr sein seine
            seinem seinen seiner seines seit sich sie sind so über um und uns unser unter vom von vor war waren wann
            warum was wegen wem wen wenn wer werden wie wir wird wo woher wohin wurde wurden zu zum zur zuletzt
            derzeit zurzeit aktuell heute momentan
        """,
        "french": """
            au aux avec c ce cela ces cet cette chez comme d dans de depuis des du elle elles en est et eu eux fait
            il ils j je l la le les leur leurs lui m ma mais me mes moi mon même n ne non nos notre nous on ont ou
            oui où par pas plus pour qu quand que quel quelle quelles quels qui quoi s sa sans se ses si son sont
            sous sur t ta te tes toi ton tous tout toute très tu un une vers vos votre vous y à été était étaient
            actuellement environ aussi mme mlle monsieur madame m
        """,
        "spanish": """
            al algo ante antes aquí así aunque bajo bien cada como con cual cuando cuál cuándo cuánto del desde
            donde dónde dos el ella ellas ellos en entre era eran es esa ese eso esta este esto está están fue
            fueron ha han hasta hay la las le les lo los más me mi mis mucho muy ni no nos o para pero por porque
            pues que quien quién qué se sea ser si sido sin sobre su sus sí también tan te tiene tienen toda todo tu
            tus un una unos y ya yo actualmente señor señora don doña sr sra quienes
        """,
        "italian": """
            agli ai alla alle allo anche che chi ci coi col come con cui da dal dalla dalle dallo degli dei del
            della delle dello di dove e ed egli era erano gli ha hanno i il io lei lo loro lui ma mi mio ne negli
            nei nel nella nelle nello noi non o per perché più quale quando quanto quella quelle quello questa
            queste questo sei si sia sono sta stata stato su sua sue sui sul sulla suo suoi tra fra un una uno voi è
            signor signora sig dott attualmente
        """,
        "portuguese": """
            ao aos as até com como da das de dela dele deles do dos e ela elas ele eles em entre era essa esse esta
            este está eu foi for foram há isso isto já lhe mais mas me mesmo meu minha muito na nas nem no nos nós
            não o os ou para pela pelas pelo pelos por quais qual quando que quem se sem ser seu seus sua suas são
            só também te tem têm ter um uma umas uns você à às é senhor senhora atualmente onde
        """,
        "dutch": """
            aan al als bij dan dat de deze die dit door een en er haar had heb hebben heeft het hij hoe hun ik in is
            ja je kan maar me meer met mevrouw mijn meneer naar niet nog nu of om omdat onder onze ook op over te
            tot u uit van veel voor waar wanneer waren was wat we wel wie wij worden wordt zei zich zij zijn zo
            zonder zou momenteel
        """,
        "russian": """
            и в во не что он на я с со как а то все она так его но да ты к у же вы за бы по только ее её мне было
            вот от меня еще нет о из ему теперь когда даже ну вдруг ли если уже или ни быть был него до вас нибудь
            опять уж вам ведь там потом себя ничего ей может они тут где есть надо ней для мы тебя их чем была сам
            чтоб без будто чего раз тоже себе под будет ж тогда кто этот того потому этого какой какая какое каков
            какова совсем ним здесь этом один почти мой тем чтобы нее сейчас были куда зачем всех это господин
            госпожа
        """,
        "polish": """
            ma nie się jest są był była było na do z ze w we i o od po za przez dla przy jako jego jej ich pan pani
            czy tak co kto gdzie kiedy jak jaki jaka jakie który która które
        """,
        "turkish": """
            bir ve ile bu şu o da de için mi mı ne kim nerede olarak onun evet hayır bay bayan dır dir
        """,
        "arabic": """
            هو هي في من على إلى عن مع هذا هذه التي الذي كان كانت ما لا نعم و أن إن قد هل أين متى كم السيد السيدة
        """,
        "hindi": """
            है हैं का की के को में से पर और यह वह था थी थे ने एक क्या कौन कहाँ कब हाँ नहीं श्री श्रीमती
        """,
        "korean": """
            입니다 이다 이에요 예요 은 는 이 가 의 을 를 에 에서 네 씨 그 그녀 그의 그녀의 있습니다 합니다 살고
        """,
    }.items()
}
"""Words of common languages that carry no fact of their own; no span starts or ends with one."""

AFFIRMATIONS = frozenset(
    "yes no ja nein doch oui non si sí sì não sim да нет nee tak nie evet hayır نعم لا हाँ नहीं 네 아니요 是 不是 没有 "
    "はい いいえ".split()
)
"""What an answer adds to a question that holds everything else."""

ATTRIBUTE_WORDS = frozenset(
    """
    account address addresses age aged amount amounts annual annually answer apparently available based believe birth
    birthday birthdate born call called calls cell cellphone code contact contacted contacts came condition date day
    designated detail details diagnose diagnosed diagnosis dial disease dob e-mail earn earned earning earnings earns
    email emailed emails employed exact fall fax find follow following follows found full get gets give given go goes
    gross home house identified ill illness income inbox know known landline line listed live lived lives living located
    location mail make makes mobile monthly move moved name named names number numbers paid pay payment pays person
    personal phone phoned place private profession reach reachable reached receive received receives record recorded
    records registered reside resided residence resides residing respond say said says salary sent settled sick start
    stay stays staying suffer suffered suffering suffers take takes tel telephone text treated treatment undergoing use
    used uses wage wages whose work worked working works write written yearly make sum total dwell dwells hold holds
    currently go-by goes write-to identity identified entry under reading reads remains stands lists show shows

    adresse adressen alter angerufen arbeitet arbeiten beläuft beruf beträgt betragen bezieht bekommt bekam benannt
    brutto netto diagnose diagnostiziert e-mail-adresse email-adresse einkommen erhält erkrankt erkrankung erreichbar
    erreichen erreicht festgestellt geboren geburtsdatum geburtstag gehalt geheißen gehört handy handynummer heißen heißt
    jahresgehalt kam kommt krank krankheit lautet lauten lebt leben leidet leiden liegt lohn mail mailadresse mobilnummer
    monatsgehalt monatlich jährlich name namens nennt nummer rufnummer telefon telefonisch telefonnummer verdient
    verdienen welt wohnhaft wohnort wohnsitz wohnt wohnen anschrift gemeldet zieht zog festnetz festgenetznummer litt
    erkrankte verdienst sitzt findet befindet festnetznummer

    adresse-mail appelle appelé appelée appeler atteint atteinte contacter courriel date demeure diagnostic
    diagnostiqué diagnostiquée domicile domicilié domiciliée email gagne gagner habite habiter jour joignable joindre
    maladie mail mobile naissance naquit né née nom nommé nommée numéro portable perçoit prénom reçu reçoit rémunération
    réside résider revenu revenus salaire situe située situé s'élève élève souffre souffrir soigné touche téléphone trouve
    vit vivre vient mensuel annuel brut suivi traité traitée

    apellido asciende celular cobra contactar correo correos cumpleaños diagnosticada diagnosticado diagnosticaron
    diagnóstico dirección domiciliado domiciliada electrónico encuentra enfermedad fecha gana ganar habita ingresos
    llama llamado llamada llamarla llamarlo localizar móvil nace naciera nacimiento nacida nacido nació nombre número
    padece padecer percibe reside residencia salario sueldo sufre sufrir teléfono vive vivir domicilio mensual anual
    bruto contactarla contactarlo

    abita abitare affetta affetto ammonta cellulare chiama chiamato compleanno contattare data diagnosi diagnosticata
    diagnosticato diagnosticate elettronica guadagna indirizzo malattia nascita nata nato nome numero percepisce posta
    reddito residente residenza risiede situata situato soffre soffrire stipendio telefono trova vive chiamata mensile
    annuo annuale lordo contattata contattato raggiungibile

    aniversário celular chama chamada chamado contactado correio data diagnosticada diagnosticado diagnóstico doença
    eletrónico eletrônico endereço fica ganha localizado localizada morada mora morar mensal anual nasceu nascida nascido
    nascimento nome número padece recebe rendimento residência salário sofre sofrer telefone telemóvel vive reside

    adres bereikbaar bereiken bedraagt geboortedatum geboren heet inkomen leeft lijdt mobiele naam nummer salaris
    telefoonnummer verdient verjaardag verblijft woonachtig woont ziekte gediagnosticeerd gediagnosticeerd verdiend
    diagnose e-mailadres telefoon woonadres gevestigd

    адрес болеет болезнь возраст диагностирован диагностирована диагноз диагностировали день доход живет живёт
    зарабатывает зарплата заработная зарегистрирован зарегистрирована зовут имя квартира мобильный находится номер
    получает почта почты электронной электронная поставили проживает родилась родился рождения дата составляет страдает
    телефон телефона называется оклад

    adres adresu email mieszka nazywa numer telefonu telefon urodził urodziła urodzenia data zarabia wynosi cierpi choruje
    pensja zdiagnozowano

    adı adresi doğdu doğum tarihi e-posta hastalığı kazanıyor maaşı numarası oturuyor telefon yaşıyor

    رقم هاتف عنوان اسمه اسمها يسكن تسكن يعيش تعيش ولد ولدت راتبه راتبها يعاني تعاني البريد الإلكتروني مرض يبلغ

    फ़ोन फोन नंबर पता नाम रहता रहती रहते जन्म हुआ वेतन बीमारी पीड़ित ईमेल

    전화번호 전화번호는 주소 주소는 이름 이름은 이메일 이메일은 생년월일은 연봉은 월급은 태어났습니다 진단받았습니다 앓고 살고
    """.split()
)
"""Words that name an attribute or say that somebody has it: they lead to a value and are marked only if there is none."""

RELATION_WORDS = frozenset(
    """
    aunt boyfriend brother brothers child children cousin cousins dad daughter daughters engaged ex father fiancé fiancée
    girlfriend granddaughter grandfather grandmother grandson husband husbands married marry mother mum mom nephew niece
    parent parents partner related relationship relative sibling siblings sister sisters son sons spouse stepfather
    stepmother uncle wed wedded wife wives friend dating

    bruder ehefrau ehemann ehepartner eltern enkel enkelin freund freundin gatte gattin geschwister großmutter großvater
    kind kinder liiert lebensgefährte lebensgefährtin mutter neffe nichte onkel schwester schwestern sohn söhne tante
    tochter töchter vater verheiratet verlobt verwandt cousine frau mann

    beau-frère belle-mère cousin cousine enfant enfants épouse époux femme fiancé fiancée fille fils frère frères
    grand-mère grand-père mari mariée marié mère neveu nièce oncle père parents sœur soeur sœurs tante compagne compagnon

    abuela abuelo casada casado cuñada cuñado esposa esposo hermana hermanas hermano hermanos hija hijas hijo hijos madre
    marido mujer nieta nieto novia novio padre padres pareja prima primo sobrina sobrino tía tío pareja

    cugina cugino figlia figli figlio fidanzata fidanzato fratelli fratello marito moglie nipote nonna nonno padre
    sorella sorelle sposata sposato zia zio madre compagna compagno

    avó avô casada casado esposa esposo filha filho filhos irmã irmão irmãos mãe marido mulher namorada namorado noiva
    noivo pai pais prima primo sobrinha sobrinho tia tio

    broer dochter echtgenoot echtgenote getrouwd moeder man neef nicht oom oma opa tante vader vrouw zoon zus zussen

    брат бабушка дедушка дочь дядя жена женат замужем мать муж отец племянник племянница сестра супруг супруга сын тётя

    żona mąż matka ojciec brat siostra syn córka karısı kocası annesi babası kardeşi oğlu kızı eşi
    زوجته زوجها والدته والده أخوه أخته ابنه ابنته زوجة زوج पत्नी पति माता पिता भाई बहन बेटा बेटी
    """.split()
)
"""Attribute words of family and friendship; where a sentence adds nothing else, they are its fact."""

CONNECTORS = frozenset(
    "of the de del della di da do dos das du des la le les el los las l d al bin ibn van von der den vom zu zum y per a an "
    "au aux the s im pro par por al il".split()
)
"""Function words inside names, dates and amounts: University of Lima, 4 de julio de 1985, 900 euros a month."""

OF_WORDS = frozenset("of de del della di du des von van d".split())

PLACE_CONNECTORS = frozenset("in à a en em at bei im am an der den near te в г ул д кв ве".split())
"""Function words inside an address: Lindenstraße 5 in 10115 Berlin."""

CONJUNCTIONS = frozenset(
    "and or but while und oder aber sowie et ou mais y e o pero ed ma mas en maar и а но i oraz ve و और".split()
)

STREET_WORDS = frozenset(
    "street road avenue lane drive square flat apartment apt room house unit floor suite box calle avenida plaza paseo "
    "camino carrera rue boulevard bd chemin place allée impasse quai via viale piazza corso largo rua travessa praça "
    "straat laan улица улице улицы ул дом доме проспект пр кв квартира д г город ulica ul plac sokak cadde caddesi شارع".split()
)
"""Words that belong to an address though they are written in lower case."""

NUMBERED_WORDS = frozenset(
    "type types stage grade level class phase typ typs stadium grad stufe stade degré tipo estadio etapa grado fase "
    "estágio grau тип стадия typu tip ثانوي".split()
)
"""Words that form one term with the number after them and the word after that: type 2 diabetes."""

QUESTION_WORDS: dict[str, frozenset[str]] = {
    "who": frozenset("who whom whose wer wem wen qui quién quiénes chi quem wie кто чья чей кому kto kim من कौन".split()),
    "where": frozenset(
        "where address live lives residence reside wo wohin woher wohnt adresse anschrift wohnort où habite domicile "
        "dónde vive dirección domicilio dove abita indirizzo onde mora endereço morada waar woont adres где живет живёт "
        "проживает адрес gdzie mieszka nerede adresi أين عنوان कहाँ पता 주소 주소는 어디에".split()
    ),
    "date": frozenset(
        "when date birthday birthdate dob wann geburtsdatum geburtstag quand naissance cuándo nacimiento cumpleaños "
        "fecha quando nascita compleanno nascimento aniversário wanneer geboortedatum verjaardag когда рождения kiedy "
        "urodzenia doğum متى कब जन्म 생년월일은 언제".split()
    ),
    "phone": frozenset(
        "phone telephone mobile cell number tel fax landline call telefon telefonnummer handy handynummer nummer "
        "rufnummer mobilnummer téléphone numéro portable teléfono móvil celular número telefono cellulare numero "
        "telefone telemóvel telefoonnummer telefoon телефон телефона номер numer numarası هاتف رقم फ़ोन फोन नंबर "
        "전화번호 전화번호는 iban passport".split()
    ),
    "mail": frozenset(
        "email e-mail mail mailadresse e-mail-adresse email-adresse courriel correo posta e-mailadres почта почты "
        "электронная электронной e-posta البريد ईमेल 이메일 이메일은".split()
    ),
    "amount": frozenset(
        "salary earn earns income wage wages paid pay gehalt verdient einkommen lohn jahresgehalt salaire gagne revenu "
        "rémunération salario sueldo gana cobra ingresos stipendio guadagna reddito salário ganha rendimento salaris "
        "inkomen зарплата зарабатывает доход оклад zarabia pensja maaşı راتب वेतन 연봉은 월급은".split()
    ),
}
"""Words of a question that say what kind of value is asked for."""

CJK_QUESTION_WORDS: dict[str, tuple[str, ...]] = {
    "who": ("谁", "誰"),
    "where": ("住", "地址", "住址", "哪里", "哪儿", "住所", "どこ"),
    "date": ("生日", "出生", "什么时候", "何时", "日期", "いつ", "誕生日", "生年月日"),
    "phone": ("电话", "手机", "号码", "電話", "携帯", "番号", "號碼"),
    "mail": ("邮箱", "邮件", "メール", "電子郵件", "信箱"),
    "amount": ("工资", "薪水", "收入", "年薪", "月薪", "年収", "給料", "月収", "挣", "薪資"),
}

CJK_ATTRIBUTE_WORDS = tuple(
    sorted(
        "电话号码 电话 手机号码 手机号 手机 号码 地址 住址 家庭住址 邮箱 邮箱地址 电子邮箱 电子邮件 电子邮件地址 邮件 工资 月工资 年工资 薪水 月薪 "
        "年薪 月收入 年收入 收入 生日 出生日期 出生于 出生在 出生 生于 诞生于 诊断 确诊 被诊断为 被诊断出 被诊断患有 诊断患有 被确诊为 确诊为 "
        "确诊患有 被诊断出患有 患有 患了 患上了 得了 身患 疾病 居住在 居住于 住在 家住 现住 位于 丈夫 妻子 母亲 父亲 妈妈 爸爸 儿子 女儿 哥哥 "
        "弟弟 姐姐 妹妹 名叫 叫做 叫 名字 姓名 结婚 嫁给了 嫁给 娶了 和 跟 目前 现在 可以 联系 拨打 联系到 通过 电邮 他的 她的 他 她 先生 女士 "
        "電話番号 電話 携帯電話 携帯番号 携帯 番号 住所 住んで います に住んで メールアドレス メール 給料 年収 月収 誕生日 生年月日 生まれ 診断 "
        "された されました と診断されました 病気 患って 夫 妻 母 父 息子 娘 兄 弟 姉 妹 母親 父親 名前 さん 氏 です でした ました".split(),
        key=len,
        reverse=True,
    )
)
"""The attribute words of Chinese and Japanese, longest first."""

CJK_FUNCTION_CHARACTERS = frozenset("的是了在为於于和与與及跟被也都就很地得把从對对这那其我你他她它们們吗呢吧")
CJK_PLACE_SUFFIXES = frozenset("省市区區县縣镇鎮乡村路街巷号號楼都府町丁")
"""Characters that end the name of a place; such a name is never cut before them."""
